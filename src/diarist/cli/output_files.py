"""Planning of output files before any work starts, and writing each of them atomically."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from diarist.cli import printable
from diarist.errors import InvalidOption, ServiceError
from diarist.formats import Format
from diarist.scratch import PIPED_PREFIX, locked_file
from diarist.system.file_replacement import replace_file

STDIN = Path("-")

Existing: TypeAlias = Literal["refuse", "replace", "skip"]

MAX_NAME_BYTES = 255
"""The maximum length of a file name on the usual file systems. Names of transcripts are shortened to it."""


@dataclass(frozen=True, slots=True)
class Task:
    """A recording to transcribe, with the outputs of its transcript."""

    recording: Path
    """The path of the recording; ``STDIN`` is standard input."""

    name: str
    """The name of the transcript files, without the extension."""

    outputs: tuple[tuple[Format, Path | None], ...]
    """Each format with its file; None is standard output. It is empty if all files exist and are kept."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The output files."""
        return tuple(path for _, path in self.outputs if path)

    @property
    def display_name(self) -> str:
        """The name of the recording in messages."""
        return "standard input" if self.recording == STDIN else printable(str(self.recording))


def plan(
    recordings: Sequence[Path],
    formats: Sequence[Format],
    folder: Path | None,
    *,
    beside: bool = False,
    existing: Existing = "refuse",
) -> tuple[Task, ...]:
    """Return a task for each recording, after checking that its outputs can be written.

    One recording in one format goes to standard output. With several of them, or with one of the other arguments, all
    outputs are files.

    Args:
        recordings: The paths that the user gave.
        formats: The formats that the user chose.
        folder: The output folder, which is created if it does not exist; None is the current folder.
        beside: Whether each output is written into the folder of its recording; ``folder`` is then None.
        existing: Whether existing outputs are an error, are replaced, or are kept and left out of the tasks.

    Raises:
        InvalidOption: A recording cannot be read, two recordings have the same output file, an output file already
            exists, or the folder cannot be used. In this case nothing has been written.
    """
    try:
        _check_readable(recordings)
        if folder is None and not beside and existing != "skip" and len(recordings) == len(formats) == 1:
            return (Task(recordings[0], _name(recordings[0]), ((formats[0], None),)),)
        if beside and STDIN in recordings:
            raise InvalidOption("standard input is in no folder: use --output instead of --beside")
        tasks = tuple(
            _files_task(recording, formats, recording.parent if beside else folder or Path())
            for recording in recordings
        )
        _check_distinct(tasks)
        _check_existing(tasks, existing)
        if existing == "skip":
            tasks = tuple(_without_existing(task) for task in tasks)
    except OSError as error:
        # Path.exists() and Path.is_dir() raise it if a name is too long or a folder cannot be searched.
        raise InvalidOption(f"{error.filename}: {error.strerror}") from error
    for target in dict.fromkeys(path.parent for task in tasks for path in task.files):
        _create_folder(target)
    return tasks


def write(path: Path, text: str, *, replace: bool) -> None:
    """Write ``text`` to ``path`` as UTF-8 atomically: a reader sees the whole file or none.

    Raises:
        OSError: The file cannot be written; ``FileExistsError`` if it exists and may not be replaced.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if not replace and path.exists():
            raise FileExistsError(
                f"{path} was created in the meantime. Choose another folder, or replace it with --force"
            )
        replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_to_stdout(text: str) -> None:
    """Write ``text`` to standard output as UTF-8, whatever the locale is.

    Raises:
        BrokenPipeError: The reader has closed standard output.
        ServiceError: Standard output cannot be written.
    """
    remaining = memoryview(text.encode())
    try:
        # With PYTHONUNBUFFERED this is a raw file, which may write less than it is given.
        while remaining:
            remaining = remaining[sys.stdout.buffer.write(remaining) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The interpreter would fail to flush the rest of the buffer when it exits, with a message of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ServiceError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def regular_file(recording: Path) -> Iterator[Path]:
    """Yield the recording as a seekable file: standard input and pipes are copied to a temporary file.

    Raises:
        OSError: The recording cannot be read, or there is not enough space for the copy.
    """
    if recording != STDIN and recording.is_file():
        yield recording
        return
    with locked_file(None, PIPED_PREFIX) as path:
        with path.open("wb") as copy:
            if recording == STDIN:
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with recording.open("rb") as source:
                    shutil.copyfileobj(source, copy)
        yield path


def _name(recording: Path) -> str:
    return "stdin" if recording == STDIN else recording.stem


def _files_task(recording: Path, formats: Sequence[Format], folder: Path) -> Task:
    name = _name(recording)
    limit_bytes = MAX_NAME_BYTES - max(len(f".{each.extension}") for each in formats)
    if len(os.fsencode(name)) > limit_bytes:
        name = os.fsencode(name)[:limit_bytes].decode(errors="ignore")
    return Task(recording, name, tuple((each, folder / f"{name}.{each.extension}") for each in formats))


def _check_readable(recordings: Sequence[Path]) -> None:
    problems = [problem for recording in recordings if (problem := _problem_with(recording))]
    if problems:
        raise InvalidOption("; ".join(problems))


def _problem_with(recording: Path) -> str | None:
    if recording == STDIN:
        return "standard input is a terminal: pipe a recording into it" if sys.stdin.isatty() else None
    if not recording.exists():
        return f"{recording}: no such file"
    if recording.is_dir():
        return f"{recording} is a folder: give the recordings in it, for example {recording}/*.wav"
    return None if os.access(recording, os.R_OK) else f"{recording}: permission denied"


def _check_distinct(tasks: Sequence[Task]) -> None:
    seen: dict[str, Task] = {}
    for task in tasks:
        # The outputs of a task differ only in their extensions. On Windows, names are not case-sensitive.
        other = seen.setdefault(os.path.normcase(task.files[0].resolve()), task)
        if other is not task:
            raise InvalidOption(
                f"{other.display_name} and {task.display_name} would both be written to {task.files[0]}: "
                "transcribe them separately, into two folders (--output)"
            )


def _check_existing(tasks: Sequence[Task], existing: Existing) -> None:
    found = [path for task in tasks for path in task.files if path.exists()]
    recordings = {_identity(task.recording) for task in tasks if task.recording != STDIN}
    for path in found:
        if path.is_dir():
            raise InvalidOption(f"{path} is a folder, but a transcript would be written there")
        if _identity(path) in recordings:
            raise InvalidOption(f"{path} is a recording itself: choose another folder (--output)")
    if found and existing == "refuse":
        shown = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise InvalidOption(
            f"{shown}: already exists; choose another folder (--output), replace with --force, or keep with "
            "--skip-existing"
        )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _without_existing(task: Task) -> Task:
    missing = tuple((each, path) for each, path in task.outputs if path and not path.exists())
    return Task(task.recording, task.name, missing)


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f"--output {folder} cannot be used as a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOption(f"{folder} is not writable: choose another folder (--output)")
