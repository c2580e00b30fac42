"""References: who speaks when and what is said, read from the files next to a recording.

``meeting.rttm``
    Who speaks when (RTTM). Without it the segments of the STM file are the turns. A recording without both files is not
    scored.
``meeting.stm``
    What is said (STM, one line per segment: recording, channel, speaker, start, end, text). A field ``<...>`` before
    the text is ignored, and so are comments (``;;``). Without this file no words are scored.
``meeting.uem``
    The regions that are scored (UEM, one line per region: recording, channel, start, end). Without it the whole
    recording is scored.
``meeting.words.json``
    The time of each word of the STM file: a list of objects with ``speaker``, ``word``, ``start`` and ``end``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from diarist.errors import InvalidOption
from diarist.evaluation.segments import Segment
from diarist.formats import rttm
from diarist.types import Span, Turn

AUDIO_EXTENSIONS = (
    ".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm", ".aac", ".aiff", ".mkv", ".mov", ".wma", ".amr",
    ".w64", ".aif", ".au", ".caf", ".mp2", ".m4b", ".3gp", ".oga", ".mka", ".avi", ".wmv", ".flv", ".m4v", ".ts",
    ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".ac3", ".eac3", ".dts", ".thd", ".mlp", ".wv", ".tta",
)  # fmt: skip
"""The extensions of recordings, in lower or upper case."""

ReadT = TypeVar("ReadT")


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference of one recording."""

    name: str
    """The name of the file without its extension."""

    turns: tuple[Turn, ...]
    """Who speaks when, in order of start."""

    segments: tuple[Segment, ...] | None = None
    """What is said, in order of start; None if there is no reference text."""

    words: tuple[Segment, ...] = ()
    """The times of the words, in order of start, if they are known."""

    scored: tuple[Span, ...] = ()
    """The regions that are scored; an empty tuple is the whole recording."""

    recording: Path | None = None
    """The audio file, if it is in the folder."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers with a positive speaking time, in order of their first turn."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns if turn.span.duration > 0))


def find(folder: Path) -> tuple[Reference, ...]:
    """Return the references of a folder in order of name: each ``NAME.rttm``, and each ``NAME.stm`` without one.

    Raises:
        InvalidOption: The path is not a folder, it contains no references, two recordings have the same name, or a file
            cannot be read. The message names the file, and the line if there is one.
    """
    if not folder.is_dir():
        raise InvalidOption(f"{folder} is not a folder: give the folder with the recordings and their references")
    names = {
        path.name.removesuffix(extension) for extension in (".rttm", ".stm") for path in folder.glob(f"*{extension}")
    }
    if not names:
        raise InvalidOption(
            f"{folder} contains no references: put NAME.rttm (or NAME.stm, or both) next to each NAME.wav"
        )
    return tuple(read(folder / f"{name}.rttm") for name in sorted(names))


def read(path: Path) -> Reference:
    """Return the reference with the given RTTM path, which need not exist if there is an STM file of the same name.

    Raises:
        InvalidOption: A file cannot be read, or two recordings have the same name, as in ``find``.
    """
    name = path.name.removesuffix(".rttm")
    stm, uem, words = (path.with_name(f"{name}{extension}") for extension in (".stm", ".uem", ".words.json"))
    segments = _load(stm, parse_stm) if stm.exists() else None
    if path.exists() or segments is None:
        turns = _load(path, rttm.parse)
    else:
        turns = tuple(Turn(each.span, each.speaker) for each in segments)
    return Reference(
        name,
        turns,
        segments,
        _load(words, parse_words) if words.exists() else (),
        _load(uem, parse_uem) if uem.exists() else (),
        _recording(path, name),
    )


def parse_stm(text: str) -> tuple[Segment, ...]:
    """Return the segments of an STM file in order of start. Segments without speech are left out.

    Raises:
        InvalidOption: A line cannot be read. The message gives its number.
    """
    segments = []
    for number, fields in _rows(text, 5, "STM"):
        span = _span(number, fields[3], fields[4], "STM")
        text_field = fields[5] if len(fields) > 5 else ""
        if text_field.startswith("<") and ">" in text_field:
            text_field = text_field.partition(">")[2]
        if fields[2] != "inter_segment_gap" and text_field.strip().lower() not in (
            "",
            "ignore_time_segment_in_scoring",
        ):
            segments.append(Segment(span, fields[2], text_field.strip()))
    return tuple(sorted(segments, key=lambda segment: segment.span.start))


def parse_uem(text: str) -> tuple[Span, ...]:
    """Return the regions of a UEM file.

    Raises:
        InvalidOption: A line cannot be read. The message gives its number.
    """
    return tuple(_span(number, fields[2], fields[3], "UEM") for number, fields in _rows(text, 4, "UEM"))


def parse_words(text: str) -> tuple[Segment, ...]:
    """Return the words of a ``.words.json`` file in order of start.

    Raises:
        InvalidOption: The text is not a list of words.
    """
    try:
        words = [
            Segment(Span(float(each["start"]), float(each["end"])), str(each["speaker"]), str(each["word"]))
            for each in json.loads(text)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidOption(
            "this is not a list of words, each with speaker, word, start and end in seconds"
            f" ({type(error).__name__}: {error})"
        ) from error
    return tuple(sorted(words, key=lambda word: word.span))


def _rows(text: str, min_fields: int, kind: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        if len(fields) < min_fields:
            raise InvalidOption(
                f"line {number} of this {kind} has {len(fields)} fields: it needs at least {min_fields}"
            )
        yield number, fields


def _span(number: int, start: str, end: str, kind: str) -> Span:
    try:
        return Span(float(start), float(end))
    except ValueError:
        raise InvalidOption(
            f"line {number} of this {kind} cannot be read: start and end must be seconds, the end not before the start,"
            f" not {start!r} and {end!r}"
        ) from None


def _load(path: Path, parse: Callable[[str], ReadT]) -> ReadT:
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except InvalidOption as error:
        raise InvalidOption(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidOption(f"{path} is not UTF-8 text: convert it to UTF-8") from error
    except OSError as error:
        raise InvalidOption(f"{path} cannot be read: {error.strerror or error}") from error


def _recording(path: Path, name: str) -> Path | None:
    recordings = sorted(
        each for each in path.parent.iterdir() if each.stem == name and each.suffix.lower() in AUDIO_EXTENSIONS
    )
    if len(recordings) > 1:
        raise InvalidOption(
            f"{recordings[0]} and {recordings[1].name} both belong to {path.name}: leave only one of them in the folder"
        )
    return recordings[0] if recordings else None
