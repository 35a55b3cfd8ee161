"""Imports of large packages."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Around the first import of a large package, which takes a fifth less time or better without the collector.

    The collector would look through all that is made again and again, and find nearly all of it there to stay. It is
    told so, and what is garbage by then stays too. Nothing happens where the package was imported before: what is made
    then may be garbage one day.
    """
    if package in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # some packages complain at the end of what nobody collects
        gc.enable()
