"""The `analysis` command, also as `python -m analysis`: begun and left as fast as it can be."""

import atexit
import gc
import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command and leave with its exit code."""
    code = 1

    def leave() -> None:
        """Without taking apart all that was imported and read, which takes a second or two."""
        with suppress(OSError):
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()
        os._exit(code)

    atexit.register(leave)  # what is registered first is called last
    gc.disable()  # it would look through all that is imported again and again, and find it there to stay
    try:
        from analysis.cli import main as command

        gc.freeze()
        gc.enable()
        command()
    except SystemExit as end:
        code = int(end.code or 0)
        raise
    except KeyboardInterrupt:
        code = 130


if __name__ == "__main__":
    main()
