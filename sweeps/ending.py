"""How a command ends: at once."""

import atexit
import os
import sys
from contextlib import suppress


class Ending:
    """From when it is made, leaving Python is leaving with `code`, without taking apart all that was imported and read,
    which takes a second or two. What others have registered with `atexit` since is still called, before."""

    def __init__(self) -> None:
        self.code = 1
        atexit.register(self._leave)  # the first to be registered is the last to be called

    def _leave(self) -> None:
        with suppress(OSError):
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()
        os._exit(self.code)
