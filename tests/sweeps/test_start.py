"""Ray starts beside the tracking store and the import of Tune (`Launch.tracker`)."""

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

BESIDE = """
from sweeps.tracking import MLflowTracker
uri = f"sqlite:///{folder}/mlflow.db"
MLflowTracker(uri=uri, artifacts=folder, experiment="e", provenance=None, downloads=folder)
import sweeps.ray_engine
"""


def imported_by(start, folder):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(start=start), folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_their_threads_import_nothing_in_common(tmp_path):
    """A module that two threads import at once can be half there for one of them."""
    ray = imported_by("sweeps.ray_cluster.start_ray(folder)", tmp_path)
    other = imported_by(BESIDE, tmp_path)
    assert ray
    assert other
    assert ray & other == set()
