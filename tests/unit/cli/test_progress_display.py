from __future__ import annotations

import io

import pytest
from rich.console import Console

from diarist.cli.progress_display import BarReporter, _progress_bar


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/somebody/recordings/of last year/in the office/monday.wav", "monday.wav"),
        ("the meeting of the whole department, second half, copy.wav", "second half, copy.wav"),
        ("standard input", "standard input"),
    ],
)
def test_the_name_of_a_recording_leaves_space_for_the_times(name, shown):
    progress = _progress_bar()
    screen = io.StringIO()
    with BarReporter(progress).step(name) as report:
        report("segmentation", 0.25)
        Console(file=screen, width=80).print(progress.get_renderable())
    line = screen.getvalue().rstrip()
    assert f"{shown} segmentation " in line
    assert line.endswith(" 25% 0:00:00 left -:--:--")
