"""An explorer as controls of ipywidgets, redrawn by Python in a running notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridsam_lite.widgets.parts import ipywidgets, said

if TYPE_CHECKING:
    from hybridsam_lite.explorers.explorer import Explorer

__all__ = ["widget"]


def widget(explorer: Explorer) -> Any:
    """Controls, a sentence and a picture; the question comes first if there is one.

    Returns:
        An ipywidgets box; the last value of a notebook cell shows it.

    Raises:
        ImportError: without ipywidgets.
    """
    widgets = ipywidgets()
    controls = {}
    for c in explorer.controls:
        options = list(zip(c.texts, c.values, strict=True))
        look: Any = {"options": options, "value": c.start, "description": c.label}
        wide = {"style": {"description_width": "10em"}, "layout": {"width": "min(100%, 32em)"}}
        slider = {} if c.choice else {"continuous_update": False}
        controls[c.name] = (widgets.Dropdown if c.choice else widgets.SelectionSlider)(**look, **wide, **slider)
    text, picture = widgets.HTML(), widgets.HTML()
    guesses: list[float] = []

    def show(_: Any) -> None:
        state = {name: control.value for name, control in controls.items()}
        shown = explorer.active(state)
        for c in explorer.controls:
            controls[c.name].layout.display = None if c in shown else "none"
        text.value = said(explorer.at(state)["text"])
        picture.value = explorer.picture(state, guesses[0] if guesses else None)

    for control in controls.values():
        control.observe(show, "value")
    body = widgets.VBox([*controls.values(), text, picture])
    if explorer.guess is None:
        show(None)
        return body
    return _asking(widgets, explorer, body, guesses, show)


def _asking(widgets: Any, explorer: Explorer, body: Any, guesses: list[float], show: Any) -> Any:
    """A question, and the explorer once it has been answered."""
    asked = explorer.guess
    assert asked is not None
    entry = widgets.Text(description="your guess", placeholder=f"between {asked.low:g} and {asked.high:g}")
    button = widgets.Button(description="Commit to it")
    verdict = widgets.HTML()
    box = widgets.VBox([widgets.HTML(said(asked.question)), widgets.HBox([entry, button]), verdict])

    def commit(_: Any) -> None:
        try:
            guess = float(entry.value.replace(",", "."))
        except ValueError:
            guess = float("nan")
        if not asked.low <= guess <= asked.high:
            verdict.value = said(f"Give a number between {asked.low:g} and {asked.high:g}, got {entry.value!r}.")
            return
        guesses.append(guess)
        entry.disabled = button.disabled = True
        verdict.value = said(asked.verdict(guess))
        show(None)
        box.children = (*box.children, body)

    button.on_click(commit)
    return box
