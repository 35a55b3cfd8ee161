"""`python -m benchmarks.peak FILE MODULE ARGUMENTS...`: run a module as `python -m` would, and write to FILE the most
memory that the process had at once, in megabytes.

Asked of the kernel by the process itself when the module is done: what a parent is told counts its own memory too, from
before the child became another program.
"""

import re
import runpy
import sys
from pathlib import Path


def _write(file: Path) -> None:
    status = Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    file.write_text(f"{int(kilobytes) * 1024 / 1e6:.1f}")


if __name__ == "__main__":
    file, module = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:  # not at exit, where a module may leave before it is our turn
        _write(Path(file))
