"""References: what was really said, by whom and when, read from the files beside a recording.

``meeting.rttm``
    Who speaks when (RTTM). Without it the segments of the STM are the turns; without both a recording is not scored.
``meeting.stm``
    What is said (STM, a line a segment: recording, channel, speaker, start, end, text; a field ``<...>`` before the
    text and comments, ``;;``, are passed over). Without it no words are scored.
``meeting.uem``
    The parts that are scored (UEM, a line a part: recording, channel, start, end). Without it: all.
``meeting.words.json``
    When each word of the STM is said: a list of objects with ``speaker``, ``word``, ``start`` and ``end``.
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

SOUND = (
    ".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm", ".aac", ".aiff", ".mkv", ".mov", ".wma", ".amr",
)  # fmt: skip
"""Endings of the files that are taken for recordings, small letters or capitals."""

ReadT = TypeVar("ReadT")


@dataclass(frozen=True, slots=True)
class Reference:
    """The truth about one recording."""

    name: str
    """The file's, without its ending."""

    turns: tuple[Turn, ...]
    """Who speaks when, in order of start."""

    segments: tuple[Segment, ...] | None = None
    """What is said, in order of start; None where nobody wrote it down."""

    words: tuple[Segment, ...] = ()
    """When each word is said, in order of start, where that is known."""

    scored: tuple[Span, ...] = ()
    """The parts that are scored; none: all of the recording."""

    recording: Path | None = None
    """The audio, where it is here."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Everyone who speaks for some time, in order."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns if turn.span.duration > 0))


def find(folder: Path) -> tuple[Reference, ...]:
    """Every ``NAME.rttm`` of a folder, and every ``NAME.stm`` without one, with what lies beside it, in order of name.

    Raises:
        InvalidOption: it is no folder, there is neither in it, two recordings have one name, or a file cannot be read;
            the message names the file, and the line where there is one.
    """
    if not folder.is_dir():
        raise InvalidOption(f"{folder} is not a folder: name the one that holds the recordings and their references")
    names = {path.name.removesuffix(ending) for ending in (".rttm", ".stm") for path in folder.glob(f"*{ending}")}
    if not names:
        raise InvalidOption(f"{folder} holds no references: put NAME.rttm (or NAME.stm, or both) beside each NAME.wav")
    return tuple(read(folder / f"{name}.rttm") for name in sorted(names))


def read(path: Path) -> Reference:
    """The reference whose RTTM is at ``path``, or would be beside its STM, with the files of the same name.

    Raises:
        InvalidOption: as ``find``.
    """
    name = path.name.removesuffix(".rttm")
    stm, uem, words = (path.with_name(f"{name}{ending}") for ending in (".stm", ".uem", ".words.json"))
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
    """The segments of an STM file, in order of start; those in which nothing is said count for nothing.

    Raises:
        InvalidOption: a line cannot be read; the message gives its number.
    """
    segments = []
    for number, fields in _rows(text, 5, "STM"):
        span = _span(number, fields[3], fields[4], "STM")
        said = fields[5] if len(fields) > 5 else ""
        if said.startswith("<") and ">" in said:
            said = said.partition(">")[2]
        if fields[2] != "inter_segment_gap" and said.strip().lower() not in ("", "ignore_time_segment_in_scoring"):
            segments.append(Segment(span, fields[2], said.strip()))
    return tuple(sorted(segments, key=lambda segment: segment.span.start))


def parse_uem(text: str) -> tuple[Span, ...]:
    """The parts that a UEM file names.

    Raises:
        InvalidOption: a line cannot be read; the message gives its number.
    """
    return tuple(_span(number, fields[2], fields[3], "UEM") for number, fields in _rows(text, 4, "UEM"))


def parse_words(text: str) -> tuple[Segment, ...]:
    """The words of a ``.words.json`` file, in order of start.

    Raises:
        InvalidOption: it is not such a file.
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


def _rows(text: str, least: int, kind: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        if len(fields) < least:
            raise InvalidOption(f"line {number} of this {kind} has {len(fields)} fields: it needs at least {least}")
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
        raise InvalidOption(f"{path} is not UTF-8 text: store it as UTF-8") from error
    except OSError as error:
        raise InvalidOption(f"{path} cannot be read: {error.strerror or error}") from error


def _recording(path: Path, name: str) -> Path | None:
    found = sorted(each for each in path.parent.iterdir() if each.stem == name and each.suffix.lower() in SOUND)
    if len(found) > 1:
        raise InvalidOption(
            f"{found[0]} and {found[1].name} would both be scored by {path.name}: leave one of them in the folder"
        )
    return found[0] if found else None
