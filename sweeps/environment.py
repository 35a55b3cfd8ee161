"""What Ray and MLflow read from the environment. To be imported before either of them, and before there are threads."""

import os

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",  # with verbose=0 the only way to a silent Tune
    RAY_CHDIR_TO_TRIAL_DIR="0",
    TUNE_DISABLE_SIGINT_HANDLER="1",  # it waits for trials to save, which ours do by themselves
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    RAY_num_prestart_python_workers="0",  # Tune's trials have an environment of their own, so would not use them
    RAY_prestart_worker_first_driver="0",
    RAY_enable_worker_prestart="0",
    TUNE_MAX_PENDING_TRIALS_PG="4",  # the default starts short trials one by one
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
)
# A server that does not answer is an error in seconds, not after minutes of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# Ray's own processes take their share of the cores that trials compute on, most of it for numbers that nobody reads.
os.environ.setdefault("RAY_enable_metrics_collection", "0")  # for Prometheus; the dashboard's own come another way
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "15000")  # the dashboard asks every 15 s
os.environ.setdefault("METRICS_RECORD_INTERVAL_S", "60")  # how much the dashboard itself uses
