"""Controls for notebooks, in JupyterLab, Jupyter Notebook and Colab: explore settings, a loss, a training.

Each is a thin layer of ipywidgets over plain functions, which work without a browser: `settings_of`, `compare`,
`draw_setting`, `describe_point`, `draw_point`, and `hs.live.Background` under the monitor. All controls can be
reached and moved with the keyboard, have a label, and figures have a text.
"""

from hybridsam_lite.widgets.settings import compare, draw_setting, rho_explorer, settings_of
from hybridsam_lite.widgets.training import Monitor, monitor
from hybridsam_lite.widgets.valley import describe_point, draw_point, landscape

__all__ = [
    "Monitor", "compare", "describe_point", "draw_point", "draw_setting", "landscape", "monitor", "rho_explorer",
    "settings_of",
]  # fmt: skip
