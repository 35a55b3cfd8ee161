"""What a user would write for the same tables: `mlflow.search_runs`, the per-image files by PyArrow, and pandas.

`python -m benchmarks.pandas_report STORE OUT`
"""

import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.large_store import STUDY, TEST


def main(store: Path, out: Path) -> None:
    """Write the mean and the deviation over seeds of each row, and its means by kernel size."""
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=[STUDY], filter_string="status = 'FINISHED'")
    means = pd.concat(
        {
            (run["tags.whetstone.rows"], run["tags.whetstone.seed"]): pq.read_table(
                Path(url2pathname(urlparse(run.artifact_uri).path)) / "per_image" / f"{TEST}.parquet",
                columns=["kernel_size", "psnr", "ssim"],
            )
            .group_by("kernel_size")
            .aggregate([("psnr", "mean"), ("ssim", "mean")])
            .to_pandas()
            .set_index("kernel_size")
            for _, run in runs.iterrows()
        },
        names=["row", "seed"],
    )
    # There are as many images of each kernel size, and as many of each seed.
    table = means.groupby(["row", "seed"]).mean().groupby("row").agg(["mean", "std"])
    sizes = means.groupby(["row", "kernel_size"]).mean()
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "table.csv")
    sizes.to_csv(out / "sizes.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
