"""`python -m benchmarks.idle_sweep idle ...`: the command `sweeps.ablation`, with the idle studies among its own."""

from benchmarks import idle
from sweeps import cli
from sweeps.ablation import main

idle.register()

if __name__ == "__main__":
    cli.run(main)
