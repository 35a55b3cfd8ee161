"""The `analysis` command, also as `python -m analysis`: begun and left as fast as it can be."""

import gc

from sweeps.ending import Ending


def main() -> None:
    """Run the command and leave with its exit code."""
    ending = Ending()
    gc.disable()  # it would look through all that is imported again and again, and find it there to stay
    try:
        from analysis.cli import main as command

        gc.freeze()
        gc.enable()
        command()
    except SystemExit as end:
        ending.code = int(end.code or 0)
        raise
    except KeyboardInterrupt:
        ending.code = 130


if __name__ == "__main__":
    main()
