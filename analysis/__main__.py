"""`python -m analysis` is the `analysis` command."""

from analysis.cli import main

main(prog_name="python -m analysis")
