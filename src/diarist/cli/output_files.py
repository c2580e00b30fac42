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

from diarist.cli import printable
from diarist.errors import InvalidOption, ServiceError
from diarist.formats import Format
from diarist.scratch import PIPED_PREFIX, locked_file

STDIN = Path("-")

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
    """Each format with its file; None is standard output."""

    @property
    def display_name(self) -> str:
        """The name of the recording in messages."""
        return "standard input" if self.recording == STDIN else printable(str(self.recording))


def plan(
    recordings: Sequence[Path], formats: Sequence[Format], folder: Path | None, *, replace: bool
) -> tuple[Task, ...]:
    """Return a task for each recording, after checking that its outputs can be written.

    One recording in one format without a folder goes to standard output. Otherwise all outputs are files.

    Args:
        recordings: The paths that the user gave.
        formats: The formats that the user chose.
        folder: The output folder, which is created if it does not exist; None is the current folder.
        replace: Whether existing files may be replaced.

    Raises:
        InvalidOption: A recording cannot be read, two recordings have the same output file, an output file already
            exists, or the folder cannot be used. In this case nothing has been written.
    """
    try:
        _check_readable(recordings)
        if folder is None and len(recordings) == len(formats) == 1:
            return (Task(recordings[0], _name(recordings[0]), ((formats[0], None),)),)
        target = folder or Path()
        tasks = tuple(_files_task(recording, formats, target) for recording in recordings)
        _check_distinct(tasks)
        _check_not_existing(tasks, replace=replace)
    except OSError as error:
        # Path.exists() and Path.is_dir() raise it if a name is too long or a folder cannot be searched.
        raise InvalidOption(f"{error.filename}: {error.strerror}") from error
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
        part.replace(path)
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
        # All outputs are in one folder, so equal names are equal files. On Windows, names are not case-sensitive.
        other = seen.setdefault(os.path.normcase(task.name), task)
        if other is not task:
            raise InvalidOption(
                f"{other.display_name} and {task.display_name} would both be written to {task.outputs[0][1]}: "
                "transcribe them separately, into two folders (--output)"
            )


def _check_not_existing(tasks: Sequence[Task], *, replace: bool) -> None:
    outputs = [path for task in tasks for _, path in task.outputs if path]
    recordings = [task.recording for task in tasks if task.recording != STDIN]
    for path in outputs:
        if path.is_dir():
            raise InvalidOption(f"{path} is a folder, but a transcript would be written there")
        if path.exists() and any(path.samefile(recording) for recording in recordings):
            raise InvalidOption(f"{path} is a recording itself: choose another folder (--output)")
    existing = [str(path) for path in outputs if path.exists()]
    if existing and not replace:
        shown = ", ".join(existing[:3]) + (f" and {len(existing) - 3} more" if len(existing) > 3 else "")
        raise InvalidOption(f"{shown}: already exists; choose another folder (--output), or replace with --force")


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f"--output {folder} cannot be used as a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOption(f"{folder} is not writable: choose another folder (--output)")
