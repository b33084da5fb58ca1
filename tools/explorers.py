"""A page with all explorers, on invented data: to look at them, and for their tests in the browser.

`python -m tools.explorers [FILE]` writes it, by default to _build/explorers.html.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from hybridsam_lite import explorers

ROOT = Path(__file__).resolve().parent.parent
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Explorers</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; font-family: sans-serif; }}
body {{ margin: 0 auto; max-width: 46rem; padding: 1rem; background: Canvas; color: CanvasText; }}
table {{ display: block; width: fit-content; max-width: 100%; overflow-x: auto; }}
</style>
</head>
<body>
<main>
<h1>Explorers</h1>
{}
</main>
</body>
</html>
"""


def runs(seeds: int = 5) -> pd.DataFrame:
    """Invented runs: the median of theta nears the truth, 9.81, and the loss grows with the setting."""
    rng = np.random.default_rng(0)
    rows = []
    for label, settings, away, loss in (
        ("erm", {}, 1.0, 1e-4),
        *((f"sam:rho={rho}", {"rho": rho}, 0.06 / rho, 1e-3 * rho) for rho in (0.1, 0.2, 0.5)),
        *((f"wd:lam={lam}", {"lam": lam}, 0.001 / lam, 0.1 * lam) for lam in (0.001, 0.01)),
    ):
        for seed in range(seeds):
            g = 9.81 + away * rng.normal(-0.5, 0.6)
            row = {"label": label, "settings": settings, "seed": seed, "status": "ok", "theta_hat": {"g": g}}
            rows.append(row | {"val_loss": loss * rng.uniform(0.5, 2)})
    rows[-1] |= {"status": "diverged", "theta_hat": {"g": float("nan")}, "val_loss": float("nan")}
    return pd.DataFrame(rows)


def hatches(samples: int = 600) -> pd.DataFrame:
    """Invented hatches in degrees: plain training compresses their range."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 45, samples)
    slopes = {"erm": (0.3, 12.0), "sam:rho=0.1": (0.8, 3.0), "sam:rho=0.5": (0.97, 1.0)}
    return pd.concat(
        pd.DataFrame({"label": label, "true": true, "found": a * true + b + rng.normal(0, 1.5, samples)})
        for label, (a, b) in slopes.items()
    )


def all_six(predict: bool = False) -> dict[str, explorers.Explorer]:
    """Each explorer by the name of its function."""
    return {
        "theta_against_setting": explorers.theta_against_setting(
            runs(), truth=9.81, unit="m/s²", start="sam:rho=0.2", predict=predict
        ),
        "valley": explorers.valley(predict=predict),
        "sam_step": explorers.sam_step(predict=predict),
        "rate_ratio": explorers.rate_ratio(predict=predict),
        "inferred": explorers.inferred(hatches(), "hatch", "degrees", predict=predict),
        "information_bound": explorers.information_bound(predict=predict),
    }


def page(shown: dict[str, explorers.Explorer]) -> str:
    """An HTML page with these explorers, each in a section of its name."""
    sections = (
        f'<section id="{escape(name)}"><h2>{escape(explorer.title)}</h2>{explorer._repr_html_()}</section>'
        for name, explorer in shown.items()
    )
    return PAGE.format("\n".join(sections))


def main(arguments: list[str]) -> int:
    """Write the page, with the explorers and once more with their questions first."""
    path = Path(arguments[0]) if arguments else ROOT / "_build" / "explorers.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    asking = {f"{name}_asking": explorer for name, explorer in all_six(predict=True).items()}
    path.write_text(page(all_six() | asking), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
