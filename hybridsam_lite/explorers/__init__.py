"""Figures that a reader can operate: in a page of the book without a kernel, and in JupyterLab and Colab.

The last line of a cell shows one::

    hs.explorers.theta_against_setting(runs, truth=9.81, unit="m/s²")

=========================  ====================================================  =================
function                   question                                              from
=========================  ====================================================  =================
`theta_against_setting`    What does a method's strength do to theta, and loss?  runs, records
`inferred`                 Which theta does a model infer for each sample?       a table
`valley`                   Among perfect fits, which is the flattest?            toy A, exact
`sam_step`                 Where do ascent and descent go, which weights move?   toy A, exact
`rate_ratio`               What do two learning rates do to theta?               toy, exact
`information_bound`        What does a flat network leave to say about theta?    toy A, or models
=========================  ====================================================  =================

Each is an `Explorer`, and works in three ways from one description. As HTML it carries a static picture, a
table, its data and a short script, so that it needs neither a network nor a kernel; without scripts picture and
table remain. `explorer.widget()` is the same control of ipywidgets, redrawn by Python. `predict=True` asks for a
guess before it shows anything: True for the question that comes with the explorer, or a `Guess` of your own.

Explorers of your own: give `Explorer` controls and a function from a state to a `view`; all states are then
computed beforehand.
"""

from hybridsam_lite.explorers.bound import information_bound
from hybridsam_lite.explorers.explorer import Control, Explorer, Guess
from hybridsam_lite.explorers.rates import rate_ratio
from hybridsam_lite.explorers.samples import inferred
from hybridsam_lite.explorers.settings import theta_against_setting
from hybridsam_lite.explorers.step import sam_step
from hybridsam_lite.explorers.toy import valley
from hybridsam_lite.explorers.views import arrow, axis, line, panel, points, rule, view

__all__ = [
    "Control", "Explorer", "Guess", "arrow", "axis", "inferred", "information_bound", "line", "panel", "points",
    "rate_ratio", "rule", "sam_step", "theta_against_setting", "valley", "view",
]  # fmt: skip
