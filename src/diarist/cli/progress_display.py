"""What is told of the work while it runs: a bar on a terminal, lines when asked for, else failures alone."""

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
"""Most of a recording's name that a bar shows."""


class Reporter(Protocol):
    """Tells the user how the work goes, on standard error."""

    def step(self, name: str) -> AbstractContextManager[StatusProgress]:
        """One recording, or the models: shown while the context lasts, as the progress that it gives is called."""
        ...

    def note(self, message: str) -> None:
        """Something worth knowing."""
        ...

    def fail(self, message: str) -> None:
        """Something that went wrong: always shown."""
        ...


class Lines:
    """For pipes, files and ``--verbose``: a line for each stage if ``verbose``, else failures alone."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose

    @contextmanager
    def step(self, name: str) -> Iterator[StatusProgress]:
        stages: set[str] = set()

        def progress(stage: str, done: float) -> None:
            if stage not in stages:
                stages.add(stage)
                self.note(f"{name}: {stage} ({done:.0%})")

        yield progress

    def note(self, message: str) -> None:
        if self._verbose:
            click.echo(message, err=True)

    def fail(self, message: str) -> None:
        click.echo(f"diarist: {message}", err=True)


class Bar:
    """For terminals: the stage, how much is done, how long it took and how long it will take."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar

    @contextmanager
    def step(self, name: str) -> Iterator[StatusProgress]:
        task = self._bar.add_task(_short(name), total=1.0, stage="")
        try:
            yield lambda stage, done: self._bar.update(task, completed=done, stage=stage)
        finally:
            self._bar.remove_task(task)

    def note(self, message: str) -> None:
        self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def fail(self, message: str) -> None:
        self.note(f"diarist: {message}")


@contextmanager
def reporter(*, verbose: bool) -> Iterator[Reporter]:
    """The reporter that fits: a bar where standard error is a terminal and log lines would not tear it."""
    if verbose or not sys.stderr.isatty():
        yield Lines(verbose=verbose)
        return
    with ExitStack() as stack:
        yield Bar(stack.enter_context(_bar()))


def _short(name: str) -> str:
    """The end of a path, in as many characters as leave room for the rest on a terminal of 80 columns."""
    last = name.rstrip("/").rpartition("/")[2] or name
    return last if len(last) <= NAME_CHARS else f"…{last[1 - NAME_CHARS :]}"


def _bar() -> rich.progress.Progress:
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
        transient=True,  # the result may go to the same terminal
        refresh_per_second=4,
    )
