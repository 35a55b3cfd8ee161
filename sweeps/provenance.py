"""Where a number comes from: commit, code, preset and data, as tags of every run."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sweeps import record

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What every run of a sweep has in common, taken once at its start.

    `data` maps a data set's role and name ("train celeba-sample") to its digest; `fingerprints` a test set to its
    protocol's; `owner` tells one driver's open runs from another's; `hardware` says what computes.
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

    def tags(self) -> dict[str, str]:
        """MLflow tags of a new run."""
        return {
            record.TAG_STUDY: self.study,
            record.TAG_PRESET: self.preset,
            record.TAG_OWNER: self.owner,
            record.TAG_HARDWARE: self.hardware,
            record.TAG_COMMIT: self.commit,
            record.TAG_DIRTY: str(self.dirty).lower(),
            record.TAG_CODE_DIGEST: self.code,
            **self.data_tags(),
        }

    def data_tags(self) -> dict[str, str]:
        """The tags with the digests of data."""
        return {record.data_tag(name): digest for name, digest in self.data.items()}


def git_state() -> tuple[str, bool]:
    """The checkout's commit and whether tracked files differ from it; "unknown" outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _git(*arguments: str) -> str:
    output = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return output.stdout.strip()


def code_digest() -> str:
    """Digest of the source that trains and evaluates."""
    paths = [ROOT / "sweeps" / name for name in ("job.py", "learner.py", "train.py")]
    for folder in ("sweeps/deblurring", "model_zoo", "datasets"):
        paths += (ROOT / folder).glob("*.py")
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
