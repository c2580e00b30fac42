from __future__ import annotations

import itertools
import os
import pty
import re
import subprocess
import sys

import pytest

from diarist.cli import download_display
from diarist.cli.download_display import download_progress, megabytes

DOWNLOAD = """
from diarist.cli.download_display import download_progress
with download_progress("voice") as progress:
    progress("voice", 0, 0)
    for done_bytes in range(400_000_000, 1_000_000_001, 100_000_000):
        progress("voice", done_bytes, 1_000_000_000)
        import time; time.sleep(0.15)
"""


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Return the lines of a download that reports every 5 s, by the numbers of bytes."""

    def run(sizes: list[int], total_bytes: int) -> list[str]:
        clock = itertools.count(1_000, 5)
        monkeypatch.setattr(download_display.time, "monotonic", lambda: float(next(clock)))
        with download_progress("voice") as progress:
            for size_bytes in sizes:
                progress("voice", size_bytes, total_bytes)
        return capsys.readouterr().err.splitlines()

    return run


def test_without_a_terminal_there_is_a_line_every_ten_seconds(lines: object) -> None:
    assert lines([0, 10_000_000, 20_000_000, 30_000_000, 40_000_000], 1_000_000_000) == [
        "voice: fetching 1.00 GB",
        "voice: 20.0 MB of 1.00 GB (2%), 2.0 MB/s, 8:10 left",
        "voice: 40.0 MB of 1.00 GB (4%), 2.0 MB/s, 8:00 left",
    ]


def test_without_a_terminal_there_is_a_line_every_ten_percent(lines: object) -> None:
    assert lines([0, 100, 150, 200], 1_000)[1:] == [
        "voice: 0.0 MB of 0.0 MB (10%), 0.0 MB/s, 0:45 left",
        "voice: 0.0 MB of 0.0 MB (20%), 0.0 MB/s, 1:00 left",
    ]


def test_the_bytes_of_an_earlier_download_do_not_count_for_the_speed(lines: object) -> None:
    assert lines([900_000_000, 900_000_000, 950_000_000], 1_000_000_000) == [
        "voice: fetching 1.00 GB, 900.0 MB are there already",
        "voice: 950.0 MB of 1.00 GB (95%), 5.0 MB/s, 0:10 left",
    ]


def test_waiting_for_another_process_is_shown_once_in_ten_seconds(lines: object) -> None:
    assert lines([0] * 4, 0) == ["voice: waiting for another process that fetches models"] * 2


@pytest.mark.slow
def test_a_terminal_shows_a_bar_with_speed_and_remaining_time() -> None:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
    with subprocess.Popen([sys.executable, "-c", DOWNLOAD], stderr=terminal, env=environment) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                block = os.read(controller, 2**16)
            except OSError:  # Linux reports the end of a terminal as an error
                break
            if not block:
                break
            output += block
    os.close(controller)
    text = output.decode()
    assert process.returncode == 0
    assert re.search(r"voice .*\d+(\.\d+)?/1\.0 GB \d+(\.\d+)? [MG]B/s 0:00:\d\d", text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0.0 MB"), (670_500_000, "670.5 MB"), (1_000_000_000, "1.00 GB"), (2_546_000_000, "2.55 GB")],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert megabytes(size_bytes) == text
