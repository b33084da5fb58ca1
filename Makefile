# Every target sets up .venv by itself and re-uses it while the requirements stay the same.
#   PYTHON=/path/to/python3    which Python (3.10 to 3.13) to build .venv from
#   HYBRIDSAM_PRESET=smoke     how much a chapter computes: smoke, quick (default) or full
#   LAYER=unit                 one layer of the tests
#   PROCESSES=2                jobs at a time of make full
#   SITE_URL=https://...       where the site will be; by default at the repository's GitHub Pages
#   NOTEBOOKS=book/07_....ipynb  those that make colab runs; by default all
#   FOLDER=... ASSIGNMENT=2 OUT=grades.csv   what make grade grades, and where it writes
#   CHAPTERS="04 07" SVG=1     what make slides exports; SVG runs the chapters again
#   HOLD="torch==2.13.0"       requirements that hold make newest back
#   BENCH="--members 128"      other sizes for make bench; python -m benchmarks --help lists them all
#   UV_TORCH_BACKEND=cpu       the build of PyTorch that make newest and make colab install, by uv

.DEFAULT_GOAL := help
.PHONY: help venv book pdf site links test lab colab newest full assignments grade class slides bench soak fuzz clean

help:
	@echo "make book   run the chapters and render the book to _build/html"
	@echo "make test   lint, types, tests, doctests, notebooks, book, pages  [LAYER=name for one]"
	@echo "make lab    open the chapters in JupyterLab"
	@echo "make pdf    make book, then print it and a one-page summary to _build/pdf, with Chromium"
	@echo "make site   make book and its PDF, then copy both to _build/site: for any web server  [SITE_URL=https://...]"
	@echo "make links  make book, then ask every address that it links to"
	@echo "make colab  run the notebooks as Colab does, from an environment without this package  [NOTEBOOKS=...]"
	@echo "make newest run the notebooks with the newest versions, in .venv-newest  [HOLD=package==version]"
	@echo "make full   rerun the archived results into book/results: hours on a CPU; stop and repeat at will"
	@echo "make assignments  write the notebooks for students, and solutions, rubrics and tests, to _build/assignments"
	@echo "make grade  grade a folder of notebooks: FOLDER=... ASSIGNMENT=2 [OUT=grades.csv]"
	@echo "make class  grade a simulated class of thirty, some of them hostile"
	@echo "make slides copy the figures of the built book to _build/slides  [CHAPTERS=\"04 07\"] [SVG=1]"
	@echo "make soak   kill trainings at a hundred random moments and see that nothing is lost  [KILLS=100]"
	@echo "make fuzz   odd arguments and damaged files, until the counts are reached  [FUZZ=\"--seconds 600\"]"
	@echo "make bench  measure stacks of members against one seed at a time, into book/results/benchmark.json  [BENCH=\"--members 128\"]"
	@echo "make release-check  build wheel and sdist, look into them, use them elsewhere; licences, vulnerabilities, SBOM"
	@echo "make clean  remove builds and caches (.venv stays)"
	@echo "Each sets up .venv by itself.  PYTHON=/path/to/python3 chooses the Python (3.10 to 3.13)."

venv:
	@python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh) && "$$python" tools/venv.py

book: venv
	@.venv/bin/python -m tools.book

pdf: book
	@.venv/bin/python -m tools.pdf

site: book
	@.venv/bin/python -m tools.site

links: book
	@.venv/bin/python -m tools.links

test: venv
	@.venv/bin/python -m tools.checks $(LAYER)

lab: venv
	@.venv/bin/jupyter lab book

colab: venv
	@.venv/bin/python -m tools.colab $(NOTEBOOKS)

newest:
	@python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh) && "$$python" -m tools.newest $(HOLD)

# In the order in which results are wanted; what book/results holds already is not run again.
FULL ?= pendulum duffing reaction_diffusion pendulum_images wind_tunnel light_tunnel wind_tunnel/nested-centered \
	wind_tunnel/residual light_tunnel/residual duffing/C2 reaction_diffusion/B2 pendulum_images/D2
PROCESSES ?= 2

full: venv
	@.venv/bin/hybridsam sweep $(FULL) --preset full --out book/results --processes $(PROCESSES)

assignments: venv
	@.venv/bin/python -m tools.assignments

OUT ?= grades.csv

grade: venv
	@test -n "$(FOLDER)" -a -n "$(ASSIGNMENT)" || { echo "make grade FOLDER=submissions ASSIGNMENT=2 [OUT=grades.csv]"; exit 2; }
	@.venv/bin/python -m tools.grade "$(FOLDER)" --assignment "$(ASSIGNMENT)" --out "$(OUT)"

class: venv
	@.venv/bin/python -m tools.grade_class

slides: venv
	@.venv/bin/python -m tools.slides $(CHAPTERS) $(if $(SVG),--svg)

KILLS ?= 100

soak: venv
	@.venv/bin/python -m tools.soak --kills $(KILLS)

FUZZ ?= --cases 15000 --inputs 1000000 --seconds 7200

fuzz: venv
	@.venv/bin/python -m tools.fuzz $(FUZZ)

# Some five minutes on two idle cores. BENCH="--problems pendulum --members 1 128" measures something else.
bench: venv
	@.venv/bin/python -m benchmarks $(BENCH)

release-check: venv
	@.venv/bin/python -m tools.release

clean:
	rm -rf _build build dist .venv-newest .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
