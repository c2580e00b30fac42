"""StatusProgress on standard error: a bar on a terminal, lines with ``--verbose``, otherwise errors only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from diarist.types import StatusProgress

if TYPE_CHECKING:
    import rich.progress


NAME_CHARS = 24
"""The maximum number of characters of a recording's name in a bar."""


class ProgressReporter(Protocol):
    """Reports progress to the user on standard error."""

    def step(self, name: str) -> AbstractContextManager[StatusProgress]:
        """Show the progress of one recording or model; the context yields the function that updates it."""
        ...

    def info(self, message: str) -> None:
        """Show a message that is not an error."""
        ...

    def error(self, message: str) -> None:
        """Show an error message, regardless of the verbosity."""
        ...


class LineReporter:
    """Reports progress in lines, for pipes and files: one per stage if ``verbose``, otherwise errors only."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose

    @contextmanager
    def step(self, name: str) -> Iterator[StatusProgress]:
        stages: set[str] = set()

        def progress(stage: str, done: float) -> None:
            if stage not in stages:
                stages.add(stage)
                self.info(f"{name}: {stage} ({done:.0%})")

        yield progress

    def info(self, message: str) -> None:
        if self._verbose:
            click.echo(message, err=True)

    def error(self, message: str) -> None:
        click.echo(f"diarist: {message}", err=True)


class BarReporter:
    """Reports progress as a bar on a terminal, with the stage, the elapsed time and the remaining time."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._progress_bar = bar

    @contextmanager
    def step(self, name: str) -> Iterator[StatusProgress]:
        task = self._progress_bar.add_task(_shortened(name), total=1.0, stage="")
        try:
            yield lambda stage, done: self._progress_bar.update(task, completed=done, stage=stage)
        finally:
            self._progress_bar.remove_task(task)

    def info(self, message: str) -> None:
        self._progress_bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def error(self, message: str) -> None:
        self.info(f"diarist: {message}")


@contextmanager
def progress_reporter(*, verbose: bool) -> Iterator[ProgressReporter]:
    """Yield a bar if standard error is a terminal and no log lines would break it, or else lines."""
    if verbose or not sys.stderr.isatty():
        yield LineReporter(verbose=verbose)
        return
    with ExitStack() as stack:
        yield BarReporter(stack.enter_context(_progress_bar()))


def _shortened(name: str) -> str:
    """Return the end of a path, short enough for a bar on a terminal of 80 columns."""
    last = name.rstrip("/").rpartition("/")[2] or name
    return last if len(last) <= NAME_CHARS else f"…{last[1 - NAME_CHARS :]}"


def _progress_bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[stage]}", markup=False, style="dim"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,  # the transcript may go to the same terminal
        refresh_per_second=4,
    )
