"""Ray and the tracking store start beside each other (`Launch.tracker`)."""

import json
import subprocess
import sys

from tiny import ROOT

PROBE = """
import json, sys
from pathlib import Path
import opentelemetry.proto, opentelemetry.sdk.metrics.export
import sweeps.launch, sweeps.ray_engine
before, folder = set(sys.modules), Path(sys.argv[1])
{start}
print(json.dumps(sorted(set(sys.modules) - before)))
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
    store = imported_by("from sweeps import tracking; tracking.connect(f'sqlite:///{folder}/mlflow.db')", tmp_path)
    assert ray
    assert store
    assert ray & store == set()
