"""Where transcripts go: what is planned before any work, and files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diarist.cli import printable
from diarist.errors import InvalidOption, ServiceError
from diarist.formats import Format

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Task:
    """A recording and where its transcript goes."""

    recording: Path
    """``STDIN`` is standard input."""

    name: str
    """What the files of its transcript are called, before the extension."""

    outputs: tuple[tuple[Format, Path | None], ...]
    """Each format with its file; None is standard output."""

    @property
    def display_name(self) -> str:
        """The recording as messages name it."""
        return "standard input" if self.recording == STDIN else printable(str(self.recording))


def plan(
    recordings: Sequence[Path], formats: Sequence[Format], folder: Path | None, *, replace: bool
) -> tuple[Task, ...]:
    """Who goes where. One recording in one format without a folder goes to standard output; else all are files.

    Args:
        recordings: As the user named them.
        formats: As the user chose them.
        folder: Where files go; without one, the current folder. Made if it is not there.
        replace: Files that are there already may be replaced.

    Raises:
        InvalidOption: a recording cannot be read, two would be written to one file, a file is there already, or the
            folder cannot be used. Nothing has been written then.
    """
    _check_readable(recordings)
    if folder is None and len(recordings) == len(formats) == 1:
        return (Task(recordings[0], _name(recordings[0]), ((formats[0], None),)),)
    target = folder or Path()
    tasks = tuple(
        Task(
            recording,
            _name(recording),
            tuple((each, target / f"{_name(recording)}.{each.extension}") for each in formats),
        )
        for recording in recordings
    )
    _check_distinct(tasks)
    _check_not_existing(tasks, replace=replace)
    _create_folder(target)
    return tasks


def write(path: Path, text: str, *, replace: bool) -> None:
    """Write ``text`` to ``path`` as UTF-8, in one step: whoever looks sees all of it or nothing.

    Raises:
        OSError: it cannot be written; ``FileExistsError`` where it is there already and may not be replaced.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if not replace and path.exists():
            raise FileExistsError(f"{path} has appeared meanwhile: name another folder, or replace it with --force")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_to_stdout(text: str) -> None:
    """Write ``text`` to standard output as UTF-8, whatever the locale says.

    Raises:
        BrokenPipeError: nobody reads on.
        ServiceError: it cannot be written.
    """
    remaining = memoryview(text.encode())
    try:
        # Under PYTHONUNBUFFERED this is a raw file, which may take less than it is given and says so only here.
        while remaining:
            remaining = remaining[sys.stdout.buffer.write(remaining) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The rest of the buffer would fail again when the interpreter ends, with a message of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ServiceError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def regular_file(recording: Path) -> Iterator[Path]:
    """The recording as a file that can be read from any point: standard input and pipes are copied, for a while.

    Raises:
        OSError: it cannot be read, or there is no space for the copy.
    """
    if recording != STDIN and recording.is_file():
        yield recording
        return
    with tempfile.NamedTemporaryFile(prefix="diarist-") as copy:
        if recording == STDIN:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with recording.open("rb") as source:
                shutil.copyfileobj(source, copy)
        copy.flush()
        yield Path(copy.name)


def _name(recording: Path) -> str:
    return "stdin" if recording == STDIN else recording.stem


def _check_readable(recordings: Sequence[Path]) -> None:
    problems = [problem for recording in recordings if (problem := _problem_with(recording))]
    if problems:
        raise InvalidOption("; ".join(problems))


def _problem_with(recording: Path) -> str | None:
    if recording == STDIN:
        return "standard input is a terminal: pipe a recording into it" if sys.stdin.isatty() else None
    if not recording.exists():
        return f"{recording}: there is no such file"
    if recording.is_dir():
        return f"{recording} is a folder: name the recordings in it, for example {recording}/*.wav"
    return None if os.access(recording, os.R_OK) else f"{recording}: you may not read this file"


def _check_distinct(tasks: Sequence[Task]) -> None:
    seen: dict[str, Task] = {}
    for task in tasks:
        # One folder for all, so equal names are equal files; on Windows case does not tell names apart.
        other = seen.setdefault(os.path.normcase(task.name), task)
        if other is not task:
            raise InvalidOption(
                f"{other.display_name} and {task.display_name} would both be written to {task.outputs[0][1]}: "
                "transcribe them one after the other, into two folders (--output)"
            )


def _check_not_existing(tasks: Sequence[Task], *, replace: bool) -> None:
    outputs = [path for task in tasks for _, path in task.outputs if path]
    recordings = [task.recording for task in tasks if task.recording != STDIN]
    for path in outputs:
        if path.is_dir():
            raise InvalidOption(f"{path} is a folder, where a transcript would be written")
        if path.exists() and any(path.samefile(recording) for recording in recordings):
            raise InvalidOption(f"{path} is a recording itself: write into another folder (--output)")
    existing = [str(path) for path in outputs if path.exists()]
    if existing and not replace:
        shown = ", ".join(existing[:3]) + (f" and {len(existing) - 3} more" if len(existing) > 3 else "")
        raise InvalidOption(f"{shown}: there already; name another folder (--output), or replace with --force")


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f"--output {folder} cannot be a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOption(f"you may not write into {folder}: name another folder (--output)")
