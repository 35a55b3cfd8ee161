"""What all commands share: one line for a mistake, and a guard against another package in the way."""

import atexit
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import click

from sweeps.naming import got

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model_zoo", "datasets")
DEFAULT_RUNS = Path("runs")


C = TypeVar("C", bound=Callable[..., Any])


class Folder(click.Path):
    """A folder's name. An empty one, which is that of the current folder to click, is rather a variable's that is not
    set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a folder's name is needed, got ''", param, ctx)
        return super().convert(value, param, ctx)


def sweep_options(function: C) -> C:
    """The argument and options that ablation, search and doctor have in common: the fields of `launch.Request`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.argument("study", default="tables"),
    click.option("--preset", default="quick", show_default=True, help="quick or paper."),
    click.option(
        "--train-faces", default="celeba-sample", show_default=True, metavar="NAME|DIR", help="Faces to train on."
    ),
    click.option(
        "--test-faces",
        multiple=True,
        metavar="NAME=DIR",
        help="A column of the tables; repeatable. Default: CelebA, held out of the CelebA sample.",
    ),
    click.option(
        "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="As generator.width=32; repeatable."
    ),
    click.option("--engine", type=click.Choice(["ray", "in-process"]), default="ray", show_default=True),
    click.option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Join this Ray cluster; --runs must be a folder that all its nodes share. Default: RAY_ADDRESS, else a "
        "Ray of its own on this machine.",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Of convolutions in training. auto: bfloat16 where the GPU or, outside clusters, the processor has it.",
    ),
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=False,
        show_default=True,
        help="Whether PyTorch compiles the networks, which takes a C++ compiler and, in each stage, half a minute.",
    ),
    click.option(
        "--fused/--no-fused", default=True, show_default=True, help="Whether optimisers update in one fused call."
    ),
    click.option(
        "--fft/--no-fft",
        default=True,
        show_default=True,
        help="Whether convolutions go by Fourier transforms where that is known to be faster.",
    ),
    click.option(
        "--cpus-per-trial",
        type=click.IntRange(1),
        help="Also a trial's threads. Default: the cores, shared out over the stages that can run at once.",
    ),
    click.option(
        "--gpus-per-trial",
        type=click.FloatRange(0, min_open=True),
        help="May be a fraction. Default: as many trials on a GPU as its memory allows; in a cluster, one.",
    ),
    click.option(
        "--runs",
        default=DEFAULT_RUNS,
        type=Folder(path_type=Path),
        show_default=True,
        help="Folder of all that is written.",
    ),
    click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, else a SQLite file under --runs."),
)


def run(command: click.Command) -> None:
    """Run a command and leave with the exit code that it returns.

    A user's mistake (ValueError, OSError, a usage error, what does not fit in memory) is one line on stderr and exit
    code 2. Set WHETSTONE_DEBUG=1 for the traceback.
    """
    code = 1

    def leave() -> None:
        """Without taking apart all that was imported, which takes a second or two."""
        with suppress(OSError):
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()
        os._exit(code)

    atexit.register(leave)  # the first to be registered is the last to be called
    terminate_as_interrupt()
    code = exit_code(command)
    sys.exit(code)


def terminate_as_interrupt() -> None:
    """A plain `kill` is an interrupt too: what is open is closed. Not by way of SIGINT, which shell scripts ignore for
    what they start in the background."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def exit_code(command: click.Command) -> int:
    """Run a command with the arguments that were typed; a user's mistake is said in one line, and is 2."""
    try:
        require_own_packages()
        result: int = command.main(standalone_mode=False, prog_name=f"python -m {command.name}")
        return result
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        message = error.format_message()
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("WHETSTONE_DEBUG"):
            raise
        message = _of_the_cache(error) or str(error)
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return 2


def _of_the_cache(error: Exception) -> str:
    """Which rule a file system's error about a file of the cache breaks; empty for any other error."""
    cache = cache_folder()
    if not isinstance(error, OSError) or error.strerror is None or not isinstance(error.filename, str):
        return ""
    if not Path(error.filename).is_relative_to(cache):
        return ""
    return f"WHETSTONE_CACHE must be a folder that can be read and written, got {cache} ({error.strerror})"


def require_own_packages() -> None:
    """Refuse to work with another package that has one of our names.

    Raises:
        ImportError: naming both.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).parent if spec and spec.origin else None
        if found != ROOT / name:
            raise ImportError(
                f"the package {name!r} must be {ROOT / name}, but Python finds {found or 'none'} first; "
                f"run from {ROOT}, or uninstall the other one"
            )


def cache_folder() -> Path:
    """Where faces, kernels and weights are kept: WHETSTONE_CACHE, else `~/.cache/whetstone`."""
    return Path(os.path.expanduser(os.environ.get("WHETSTONE_CACHE", "~/.cache/whetstone")))


def tracking_uri(given: str | None, runs: Path) -> str:
    """The store: as given, else MLFLOW_TRACKING_URI, else a SQLite file under the runs folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or own_store(runs)


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for a store of another kind."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))


def own_store(runs: Path) -> str:
    """The store under a runs folder.

    Raises:
        ValueError: in a URI, %2e would be a dot, and what follows a question mark no path.
    """
    file = str(runs.resolve() / "mlflow.db")
    if "%" in file or "?" in file:
        raise ValueError(f"--runs must be a path without '%' and '?', got {runs}")
    return f"sqlite:///{file}"


def lookup(registry: Mapping[str, T], name: str, what: str) -> T:
    """The registry's entry of that name.

    Raises:
        ValueError: naming the known ones.
    """
    if name not in registry:
        raise ValueError(f"{what} must be one of {', '.join(registry)}; {got(name, registry)}")
    return registry[name]


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE options as a dictionary.

    Raises:
        ValueError: an option without `=`, or a name given twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, _, content = value.partition("=")
        if not name or not content:
            raise ValueError(f"{option}: a name, '=' and a value are needed, got {value[:80]!r}")
        if name in found:
            raise ValueError(f"{option}: each name must be given once, got {name[:80]!r} twice")
        found[name] = content
    return found


def first_cause(error: BaseException, *, hidden: str) -> str:
    """The reason in one line without `hidden`: the system's, such as `Connection refused`, where that is behind it."""
    chain = [error]
    while deeper := chain[-1].__context__:
        chain.append(deeper)
    error = next((each for each in reversed(chain) if isinstance(each, OSError)), error)
    reason = " ".join(without_password(str(error).replace(hidden, without_password(hidden))).split())
    return reason[:300] or type(error).__name__


def without_password(uri: str) -> str:
    """A URI as it may be shown."""
    return re.sub(r"(://[^/@:]*):.*@", r"\1:***@", uri)
