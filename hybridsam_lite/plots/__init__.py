"""The figures of the book, and its one plotting style: a colour for each concept.

Figures have a white ground of their own and colours with a contrast of at least 3 to it, so that
they read the same on a light and on a dark page. Within the concepts, and within the methods,
colours stay apart for the common kinds of colour blindness; methods also differ in their markers.

Arguments that return: `runs` is what `hs.fit` returned, its `frame`, or run records (a list, or a
table of them); `truth` is the true value, drawn as a line; `name` says which theta, and may be left
out if there is only one; `unit` goes on the axis; `ax` is where to draw, by default a new figure.
Functions return the axes. Matplotlib is imported by the functions that draw, not with the library.
"""

from hybridsam_lite.plots.courses import history, trajectories
from hybridsam_lite.plots.diagram import composition
from hybridsam_lite.plots.identify import diagnosis, profile
from hybridsam_lite.plots.look import COLORS, HEIGHT, MARKERS, SPARE, STYLE, WIDTH, color, style, use_style
from hybridsam_lite.plots.settings import corner, l_curve, theta_against_setting, theta_by_method
from hybridsam_lite.plots.surfaces import Surface, loss_surface, surface

__all__ = [
    "COLORS",
    "HEIGHT",
    "MARKERS",
    "SPARE",
    "STYLE",
    "WIDTH",
    "Surface",
    "color",
    "composition",
    "corner",
    "diagnosis",
    "history",
    "l_curve",
    "loss_surface",
    "profile",
    "style",
    "surface",
    "theta_against_setting",
    "theta_by_method",
    "trajectories",
    "use_style",
]
