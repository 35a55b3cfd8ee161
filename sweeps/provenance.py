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


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What every run of a sweep has in common, taken once at its start.

    `data` maps a data set's role and name ("train celeba-sample") to its digest; `fingerprints` a test set to its
    protocol's; `owner` tells one driver's open runs from another's; `hardware` says what computes, `devices` what of it
    each stage has to itself, `versions` with which packages. `diff` is what the checkout has on top of its commit,
    `licences` are sentences on the use of the data.
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
    diff: str = ""
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


def git_state(root: Path = ROOT) -> tuple[str, str]:
    """The checkout's commit and, as a patch, how tracked files differ from it; "unknown" and "" outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    try:
        # As `git apply` takes it, whatever the person's own settings.
        return git("rev-parse", "HEAD").strip(), git("diff", "HEAD", "--no-color", "--no-ext-diff")
    except (OSError, subprocess.CalledProcessError):
        return "unknown", ""


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
