"""Ray and the tracking store start beside each other (`Launch.tracker`)."""

import json
import subprocess
import sys

from tiny import ROOT

PROBE = """
import json, sweeps, sys
from pathlib import Path
from sweeps import launch
for name in launch.IMPORTED_BY_BOTH:
    __import__(name)
before, folder = set(sys.modules), Path(sys.argv[1])
{start}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

OPEN_STORE = """
from sweeps.tracking import MLflowTracker
uri = f"sqlite:///{folder}/mlflow.db"
MLflowTracker(uri=uri, artifacts=folder, experiment="e", provenance=None, downloads=folder)
"""


def imported_by(start, folder):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(start=start), folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_their_threads_import_nothing_in_common(tmp_path):
    """A module that two threads import at once can be half there for one of them."""
    ray = imported_by("sweeps.ray_engine.start_ray(folder)", tmp_path)
    store = imported_by(OPEN_STORE, tmp_path)
    assert ray
    assert store
    assert ray & store == set()
