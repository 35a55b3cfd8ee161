"""`python -m sweeps.deblur PHOTO --row ROW`: restore one image with a trained row."""

from pathlib import Path

import click

from sweeps import cli


@click.command(name="sweeps.deblur")
@click.argument("photo", type=click.Path(path_type=Path))
@click.option("--row", default="multi-task", show_default=True, help="Name of a trained row.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A PNG file. Default: PHOTO with the row's name, beside it."
)
@click.option("--study", default="tables", show_default=True)
@click.option("--preset", help="Default: that of the latest sweep.")
@click.option("--seed", default=1, show_default=True)
@click.option("--runs", default=cli.DEFAULT_RUNS, type=cli.Folder(path_type=Path), show_default=True)
@click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, else a SQLite file under --runs.")
def main(
    photo: Path,
    row: str,
    out: Path | None,
    study: str,
    preset: str | None,
    seed: int,
    runs: Path,
    tracking_uri: str | None,
) -> int:
    """Restore PHOTO with a trained row and write the result as PNG."""
    from sweeps.deblurring.restore import load_restorer, open_photo, restore_photo
    from sweeps.tracking import find_model_folder

    image = open_photo(photo)
    target = out or photo.with_name(f"{photo.stem}.{row}.png")
    if target.suffix.lower() != ".png" or target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"--out must be a .png file in a folder that exists, got {target}")
    if target.exists() and target.samefile(photo):
        raise ValueError(f"--out must be another file than PHOTO, got {target}")
    uri = cli.tracking_uri(tracking_uri, runs)
    folder = find_model_folder(uri, study=study, preset=preset, row=row, seed=seed, downloads=runs / "downloads")
    restored = restore_photo(load_restorer(folder), image)
    try:
        restored.save(target, format="PNG")
    except OSError as error:
        raise ValueError(f"--out must be a file that can be written, got {target} ({error.strerror})") from error
    click.echo(f"wrote {target}")
    return 0


if __name__ == "__main__":
    cli.run(main)
