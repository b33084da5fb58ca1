# Every target sets up .venv by itself and re-uses it while the requirements stay the same.
#   PYTHON=/path/to/python3    which Python (3.10 to 3.13) to build .venv from
#   HYBRIDSAM_PRESET=smoke     how much a chapter computes: smoke, quick (default) or full
#   LAYER=unit                 one layer of the tests
#   PROCESSES=2                jobs at a time of make full

.DEFAULT_GOAL := help
.PHONY: help venv book test lab full clean

help:
	@echo "make book   run the chapters and render the book to _build/html"
	@echo "make test   lint, types, tests, doctests, notebooks, book, pages  [LAYER=name for one]"
	@echo "make lab    open the chapters in JupyterLab"
	@echo "make full   rerun the archived results into book/results: hours on a CPU; stop and repeat at will"
	@echo "make clean  remove builds and caches (.venv stays)"
	@echo "Each sets up .venv by itself.  PYTHON=/path/to/python3 chooses the Python (3.10 to 3.13)."

venv:
	@python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh) && "$$python" tools/venv.py

book: venv
	@.venv/bin/python -m tools.book

test: venv
	@.venv/bin/python -m tools.checks $(LAYER)

lab: venv
	@.venv/bin/jupyter lab book

# In the order in which results are wanted; what book/results holds already is not run again.
FULL ?= pendulum duffing reaction_diffusion pendulum_images wind_tunnel light_tunnel wind_tunnel/nested-centered \
	wind_tunnel/residual light_tunnel/residual duffing/C2 reaction_diffusion/B2 pendulum_images/D2
PROCESSES ?= 2

full: venv
	@.venv/bin/hybridsam sweep $(FULL) --preset full --out book/results --processes $(PROCESSES)

clean:
	rm -rf _build build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
