"""Named studies: which rows are trained and how they stand in tables.

A study is a function of a config, data and seeds. A row differs from another by `dataclasses.replace` alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sweeps.deblurring.config import BlurredStage, DeblurConfig, Precision, TrainingStage
from sweeps.deblurring.data import DeblurData
from sweeps.record import Axis, Metric, RowRecord, SweepRecord, TableRecord
from sweeps.stages import Line, Range, Row, Space, Stage, Study, Table

METRICS = (
    Metric(name="psnr", label="PSNR", decimals=2, unit="dB", relevant=0.1),
    Metric(name="ssim", label="SSIM", decimals=3, relevant=0.005),
)
SSIM_NOTE = "SSIM is the 3-D one (MATLAB's on an RGB volume), as the published values are."
CONTROLS_NOTE = (
    "Each added loss also adds iterations; the controls study trains rows of the content loss alone that are as long."
)
PRECISION_NOTES = {
    "float32": "Trained in float32.",
    "bfloat16": "Convolutions of training are in bfloat16; weights, losses, updates and evaluation in float32.",
}
AXIS = Axis(column="kernel_size", label="Kernel size (pixels)")
ZOOMS = {"eyes": (0.2, 0.22, 0.8, 0.45), "mouth": (0.25, 0.54, 0.75, 0.78)}
"""Of an aligned face: of 128 pixels, the eyes are at (43, 42) and (84, 42), the corners of the mouth at (47, 84) and
(83, 84)."""
BLURRED = "blurred"
PERCEPTUAL = Range(field="losses.perceptual", low=1e-5, high=1e-2)
ADVERSARIAL = Range(field="losses.adversarial", low=1e-4, high=1e-1)
SPACES = (
    Space(row="loss-perceptual", ranges=(PERCEPTUAL,)),
    Space(row="loss-adversarial", ranges=(PERCEPTUAL, ADVERSARIAL)),
)
"""Around the weights of the presets, a factor of 30 either way."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a study is a function of; `backbone_digest` is that of the perceptual network's weights."""

    config: DeblurConfig
    data: DeblurData
    seeds: Sequence[int]
    backbone_digest: str
    caption: str
    precision: Precision = "float32"


def tables(inputs: Inputs) -> Study:
    """Tables 1 and 2: scales, multi-task, and the added losses. Five distinct stages a seed.

    Table 2 has lines for the rows that `controls` adds, where the store has them.
    """
    rows = _content_rows(inputs) + _loss_rows(inputs)
    return _study("tables", inputs, rows, (_table_1(), _table_2()), optional=_control_rows(inputs))


def controls(inputs: Inputs) -> Study:
    """Table 2 beside content-only rows of the same length: each added loss also adds iterations."""
    rows = (
        _blurred_row(inputs),
        Row(name="multi-task", stages=_multi_task(inputs)),
        *_control_rows(inputs),
        *_loss_rows(inputs),
    )
    return _study("controls", inputs, rows, (replace(_table_2(), title="Table 2 with controls"),))


STUDIES: dict[str, Callable[[Inputs], Study]] = {"tables": tables, "controls": controls}


def describe(study: Study, preset: str, seeds: Sequence[int]) -> SweepRecord:
    """What the store is told of a sweep."""
    rows = (*study.rows, *study.optional)
    keys = {row.name: {str(seed): stage.key for seed, stage in zip(seeds, row.stages, strict=True)} for row in rows}
    trained = {row.name: bool(row.stages[0].last_step) for row in rows}
    optional = {row.name for row in study.optional}
    return SweepRecord(
        study=study.name,
        preset=preset,
        seeds=list(seeds),
        tests=[test.name for test in study.tests],
        fingerprints={test.name: test.fingerprint for test in study.tests},
        metrics=list(study.metrics),
        tables=[
            TableRecord(
                title=table.title,
                caption=table.caption,
                headings=list(table.headings),
                rows=[
                    RowRecord(
                        name=line.row,
                        cells=list(line.cells),
                        keys=keys[line.row],
                        published=line.published,
                        trained=trained[line.row],
                        optional=line.row in optional,
                    )
                    for line in table.lines
                ],
            )
            for table in study.tables
        ],
        comparable=study.comparable,
        notes=list(study.notes),
        licences=list(study.licences),
        axis=study.axis,
        zooms=study.zooms,
    )


def _study(
    name: str, inputs: Inputs, rows: tuple[Row, ...], tables: tuple[Table, ...], *, optional: tuple[Row, ...] = ()
) -> Study:
    published = DeblurConfig()  # but for the loss weights, which the paper does not give
    return Study(
        name=name,
        rows=rows,
        tests=inputs.data.tests,
        metrics=METRICS,
        tables=tables,
        comparable=replace(inputs.config, losses=published.losses) == published,
        notes=(
            inputs.caption,
            SSIM_NOTE,
            *((CONTROLS_NOTE,) if optional else ()),
            PRECISION_NOTES[inputs.precision],
            *inputs.data.notes,
        ),
        spaces=SPACES,
        optional=optional,
        licences=inputs.data.licences,
        axis=AXIS,
        zooms=ZOOMS,
    )


def _training(
    inputs: Inputs, *, scales: int, multi_task: bool, perceptual: bool = False, adversarial: bool = False
) -> TrainingStage:
    """Config of a stage with the given toggles: what is off is normalised away, so that it is in no key."""
    config = inputs.config
    generator = replace(config.generator, scales=scales, multi_task=multi_task)
    if not multi_task:
        generator = replace(generator, structure_input="both")
    losses = replace(
        config.losses,
        structure=config.losses.structure if multi_task else 0.0,
        perceptual=config.losses.perceptual if perceptual else 0.0,
        adversarial=config.losses.adversarial if adversarial else 0.0,
    )
    return TrainingStage(
        generator=generator,
        losses=losses,
        optimiser=config.optimiser,
        batch_size=config.batch_size,
        precision=inputs.precision,
        data=inputs.data.training,
        backbone=config.backbone if losses.perceptual else None,
        backbone_digest=inputs.backbone_digest if losses.perceptual else None,
        discriminator_width=config.discriminator_width if losses.adversarial else None,
    )


def _content(inputs: Inputs, seed: int, *, scales: int, multi_task: bool) -> Stage:
    scale_name = "1 scale" if scales == 1 else f"{scales} scales"
    return Stage(
        name=f"{'multi-task' if multi_task else scale_name} · content",
        config=_training(inputs, scales=scales, multi_task=multi_task),
        steps=inputs.config.schedule.content,
        seed=seed,
    )


def _multi_task(inputs: Inputs) -> tuple[Stage, ...]:
    """The content stage that all losses are added to, for each seed."""
    return tuple(_content(inputs, seed, scales=2, multi_task=True) for seed in inputs.seeds)


def _blurred_row(inputs: Inputs) -> Row:
    fingerprints = tuple(test.fingerprint for test in inputs.data.tests)
    stage = Stage(name="blurred input", config=BlurredStage(tests=fingerprints), steps=0, seed=0)
    return Row(name=BLURRED, stages=tuple(stage for _ in inputs.seeds))


def _content_rows(inputs: Inputs) -> tuple[Row, ...]:
    toggles = {"scales-1": (1, False), "scales-2": (2, False), "multi-task": (2, True)}
    return (
        _blurred_row(inputs),
        *(
            Row(
                name=name,
                stages=tuple(_content(inputs, seed, scales=scales, multi_task=multi) for seed in inputs.seeds),
            )
            for name, (scales, multi) in toggles.items()
        ),
    )


def _loss_rows(inputs: Inputs) -> tuple[Row, ...]:
    schedule = inputs.config.schedule
    perceptual, adversarial = [], []
    for content in _multi_task(inputs):
        first = Stage(
            name="multi-task · +perceptual",
            config=_training(inputs, scales=2, multi_task=True, perceptual=True),
            steps=schedule.perceptual,
            seed=content.seed,
            parent=content,
        )
        second = Stage(
            name="multi-task · +adversarial",
            config=_training(inputs, scales=2, multi_task=True, perceptual=True, adversarial=True),
            steps=schedule.adversarial,
            seed=content.seed,
            parent=first,
        )
        perceptual.append(first)
        adversarial.append(second)
    return (
        Row(name="loss-perceptual", stages=tuple(perceptual)),
        Row(name="loss-adversarial", stages=tuple(adversarial)),
    )


def _control_rows(inputs: Inputs) -> tuple[Row, ...]:
    """Content-only rows, each as long as the loss row of its name."""
    schedule = inputs.config.schedule

    def longer(parent: Stage, steps: int) -> Stage:
        return Stage(
            name=f"multi-task · content to {parent.last_step + steps}",
            config=_training(inputs, scales=2, multi_task=True),
            steps=steps,
            seed=parent.seed,
            parent=parent,
        )

    first = tuple(longer(stage, schedule.perceptual) for stage in _multi_task(inputs))
    second = tuple(longer(stage, schedule.adversarial) for stage in first)
    return (Row(name="control-perceptual", stages=first), Row(name="control-adversarial", stages=second))


def _published(helen: tuple[float, float], celeba: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {
        "Helen": {"psnr": helen[0], "ssim": helen[1]},
        "CelebA": {"psnr": celeba[0], "ssim": celeba[1]},
    }


def _table_1() -> Table:
    content = "Content loss"
    return Table(
        title="Table 1",
        caption="Quantitative evaluation for multi-task framework.",
        headings=("Model", "Loss"),
        lines=(
            Line(row=BLURRED, cells=("Blurred input", ""), published={}),
            Line(
                row="scales-1",
                cells=("Multi-scale (1 scale)", content),
                published=_published((22.70, 0.824), (22.19, 0.844)),
            ),
            Line(
                row="scales-2",
                cells=("Multi-scale (2 scales)", content),
                published=_published((23.30, 0.847), (22.57, 0.856)),
            ),
            Line(
                row="multi-task",
                cells=("Multi-task (2 scales)", content),
                published=_published((23.69, 0.852), (23.04, 0.859)),
            ),
        ),
    )


def _table_2() -> Table:
    length = "Content loss, as long as "
    return Table(
        title="Table 2",
        caption="Quantitative evaluation for constraints.",
        headings=("Approach",),
        lines=(
            Line(row=BLURRED, cells=("Blurred input",), published={}),
            Line(
                row="multi-task",
                cells=("Content loss",),
                published=_published((23.69, 0.852), (23.04, 0.859)),
            ),
            Line(row="control-perceptual", cells=(length + "+ Perceptual",), published={}),
            Line(
                row="loss-perceptual",
                cells=("+ Perceptual loss",),
                published=_published((24.21, 0.857), (23.48, 0.864)),
            ),
            Line(row="control-adversarial", cells=(length + "+ Adversarial",), published={}),
            Line(
                row="loss-adversarial",
                cells=("+ Adversarial loss",),
                published=_published((24.25, 0.864), (23.56, 0.871)),
            ),
        ),
    )
