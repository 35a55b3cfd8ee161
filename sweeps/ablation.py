"""`python -m sweeps.ablation [STUDY]`: train and evaluate every row of a study."""

from pathlib import Path

import click

from sweeps import cli


@click.command(name="sweeps.ablation")
@click.argument("study", default="tables")
@click.option("--preset", default="quick", show_default=True, help="quick or paper.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds: 1 to N.")
@click.option("--plan", is_flag=True, help="Print the stage tree and leave; writes nothing.")
@click.option(
    "--train-faces", default="celeba-sample", show_default=True, metavar="NAME|DIR", help="Faces to train on."
)
@click.option(
    "--test-faces",
    multiple=True,
    metavar="NAME=DIR",
    help="A column of the tables; repeatable. Default: CelebA, held out of the CelebA sample.",
)
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="As generator.width=32; repeatable.")
@click.option("--engine", type=click.Choice(["ray", "in-process"]), default="ray", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--cpus-per-trial",
    type=click.IntRange(1),
    help="Also a trial's threads. Default: the cores, shared out over the stages that can run at once.",
)
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(0, min_open=True),
    help="May be a fraction. Default: as many trials on a GPU as its memory allows.",
)
@click.option(
    "--runs",
    default=cli.DEFAULT_RUNS,
    type=click.Path(path_type=Path),
    show_default=True,
    help="Folder of all that is written.",
)
@click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, else a SQLite file under --runs.")
def main(**options: object) -> int:
    """Train and evaluate the rows of STUDY (tables or controls); what the store already has is not trained again."""
    from sweeps.launch import Request, launch

    return launch(Request(**options))  # type: ignore[arg-type]


if __name__ == "__main__":
    cli.run(main)
