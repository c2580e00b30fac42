"""Display of a download on standard error: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from diarist.models import BytesProgress

LINE_INTERVAL_S = 10.0
LINE_SHARE = 0.1
"""Without a terminal, a line is printed after this time or this share of the download, whichever comes first."""


def megabytes(size_bytes: int) -> str:
    """Return a size as in ``670.5 MB`` (1 MB is 1,000,000 bytes), or as in ``2.55 GB``."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


@contextmanager
def download_progress(name: str) -> Iterator[BytesProgress]:
    """Show the progress, the speed and the remaining time of a download, and where an earlier one is resumed."""
    if not sys.stderr.isatty():
        yield _Lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        started = False

        def show(_model: str, done_bytes: int, total_bytes: int) -> None:
            nonlocal started
            if not total_bytes:
                bar.update(task, description=f"{name}: waiting for another process")
            elif not started:
                # without the reset, the bytes of an earlier download would count for the speed
                bar.reset(task, completed=done_bytes, total=total_bytes, description=name)
                started = True
            else:
                bar.update(task, completed=done_bytes)

        yield show


class _Lines:
    """Prints a line at the beginning, and then one every ten seconds or ten percent."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started_at: float | None = None
        self._first_bytes = 0
        self._printed_at = -LINE_INTERVAL_S
        self._printed_bytes = 0
        self._total_bytes = 0

    def __call__(self, _model: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if not total_bytes:
            if now - self._printed_at >= LINE_INTERVAL_S:
                self._print(now, 0, "waiting for another process that fetches models")
            return
        if self._started_at is None or total_bytes != self._total_bytes:  # another source has another size
            self._started_at, self._first_bytes, self._total_bytes = now, done_bytes, total_bytes
            resumed = f", {megabytes(done_bytes)} are there already" if done_bytes else ""
            self._print(now, done_bytes, f"fetching {megabytes(total_bytes)}{resumed}")
            return
        share = (done_bytes - self._printed_bytes) / total_bytes
        if now - self._printed_at >= LINE_INTERVAL_S or share >= LINE_SHARE:
            speed = (done_bytes - self._first_bytes) / max(now - self._started_at, 0.001)
            left = f", {_duration((total_bytes - done_bytes) / speed)} left" if speed > 0 else ""
            done = f"{megabytes(done_bytes)} of {megabytes(total_bytes)} ({done_bytes / total_bytes:.0%})"
            self._print(now, done_bytes, f"{done}, {speed / 1e6:.1f} MB/s{left}")

    def _print(self, now: float, done_bytes: int, text: str) -> None:
        self._printed_at, self._printed_bytes = now, done_bytes
        click.echo(f"{self._name}: {text}", err=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
