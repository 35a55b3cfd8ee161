"""Where a number comes from: commit, code, preset and data, as tags of every run."""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sweeps import record

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "ray", "mlflow", "numpy")
"""Whose versions a run's tags hold."""
PATCH = (
    *("--binary", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
"""Options that make of `git diff` what `git apply` takes, whatever the person's own settings."""
SOURCES = ("sweeps/*.py", "model_zoo/*.py", "datasets/*.py")
"""Code that can change a number, in git's own patterns: a `*` also stands for folders."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What every run of a sweep has in common, taken once at its start.

    `data` maps a data set's role and name ("train celeba-sample") to its digest; `fingerprints` a test set to its
    protocol's; `owner` tells one driver's open runs from another's; `hardware` says what computes, `devices` what of it
    each stage has to itself, `versions` with which packages. `dirty` and `diff` say what the checkout has on top of its
    commit, see `git_state`; `licences` are sentences on the use of the data.
    """

    study: str
    preset: str
    data: dict[str, str]
    fingerprints: dict[str, str]
    owner: str
    hardware: str
    commit: str
    dirty: bool
    code: str
    devices: str = ""
    versions: str = ""
    diff: bytes = b""
    licences: tuple[str, ...] = ()

    def tags(self) -> dict[str, str]:
        """MLflow tags of a new run."""
        return {
            record.TAG_STUDY: self.study,
            record.TAG_PRESET: self.preset,
            record.TAG_OWNER: self.owner,
            record.TAG_HARDWARE: self.hardware,
            record.TAG_DEVICES: self.devices,
            record.TAG_VERSIONS: self.versions,
            record.TAG_COMMIT: self.commit,
            record.TAG_DIRTY: str(self.dirty).lower(),
            record.TAG_CODE_DIGEST: self.code,
            **self.data_tags(),
        }

    def data_tags(self) -> dict[str, str]:
        """The tags with the digests of data."""
        return {record.data_tag(name): digest for name, digest in self.data.items()}


def git_state(root: Path = ROOT) -> tuple[str, bool, bytes]:
    """The checkout's commit, whether it is dirty and, as a patch for `git apply`, how tracked files differ from it.

    Untracked source makes it dirty too, but is not in the patch. Outside a checkout: "unknown", False and b"".
    """

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True).stdout

    try:
        commit, diff = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD", *PATCH)
        untracked = git("ls-files", "--others", "--exclude-standard", "--", *SOURCES)
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False, b""
    return commit, bool(diff or untracked), diff


def versions() -> str:
    """Versions of Python and of PACKAGES, from their metadata: to import them would take seconds."""
    numbers = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def code_digest() -> str:
    """Digest of the source that trains and evaluates."""
    paths = [ROOT / "sweeps" / name for name in ("job.py", "learner.py", "train.py")]
    for folder in ("sweeps/deblurring", "model_zoo", "datasets"):
        paths += (ROOT / folder).glob("*.py")
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
