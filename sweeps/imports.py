"""Imports of large packages."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Around the first import of a large package, which takes a fifth less time without the garbage collector.

    The collector looks through what is made again and again, and finds that it is there to stay; it is told so at the
    end. Nothing happens where the package was imported before: what is made then may be garbage one day.
    """
    if package in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
