"""Tables and reports, rebuilt from the tracking store alone."""

import os

# Before any module imports MLflow, which then reads the first, and else writes to the home folder.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
