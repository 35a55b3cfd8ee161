"""What a person sees, at the widths that terminals have."""

import pytest
from rich.console import Console

from sweeps.progress import Progress
from sweeps.sweep import State


@pytest.mark.parametrize("note", ["", "a note longer than any terminal is wide " * 5])
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_number_is_cut_however_narrow_the_terminal(tiny_study, width, note):
    console = Console(width=width, height=40, force_terminal=True, record=True, color_system=None)
    progress = Progress(console, tiny_study.stages())
    for stage in tiny_study.stages():
        progress.update(stage, State.RUNNING, 1, {"validation/psnr": 23.04}, note)
    console.print(progress._table())
    lines = console.export_text().splitlines()
    shown = [line for line in lines if "running" in line]
    assert len(shown) == 6
    assert "val. dB left" in lines[0]
    assert sum("1/4" in line and "23.04" in line for line in shown) == 3
    assert all(len(line.rstrip()) <= width for line in lines)
    assert ("━" in "".join(lines)) == (width >= 100)


def test_what_is_done_has_another_bar_than_what_waits_with_16_colours(tiny_study):
    console = Console(width=140, force_terminal=True, color_system="standard")
    progress = Progress(console, tiny_study.stages())
    done, *_, waiting = (stage for stage in tiny_study.stages() if stage.steps)
    progress.update(done, State.DONE, done.steps, {}, "")
    with console.capture() as shown:
        console.print(progress._table())
    bars = {}
    for line in shown.get().splitlines():
        bars |= {
            stage.key: line[line.rindex("\x1b[", 0, line.index("━")) :]
            for stage in (done, waiting)
            if stage.title in line
        }
    assert bars[done.key] != bars[waiting.key]


def test_lines_where_the_output_is_no_terminal(tiny_study, capsys):
    progress = Progress(Console(width=80), tiny_study.stages())
    stage = tiny_study.stages()[1]
    with progress:
        progress.update(stage, State.RUNNING, 0, {}, "going on after step 2")
        for step in range(1, stage.steps + 1):
            progress.update(stage, State.RUNNING, step, {"validation/psnr": 20.0 + step}, "")
        progress.update(stage, State.FAILED, 4, {}, "NonFiniteError: loss/total is nan")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{stage.title}: running, going on after step 2"
    assert len(lines) == 6
    assert lines[-1] == f"{stage.title}: failed, validation 24.00 dB, NonFiniteError: loss/total is nan"
