"""Run the command line as `python -m hybridsam_lite`."""

from hybridsam_lite.cli import main

main()
