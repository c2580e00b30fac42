"""Answers that are there already, as files or from a running service."""

from __future__ import annotations

import json
from pathlib import Path

from diarist.errors import InvalidOption
from diarist.evaluation.segments import Answer, Segment
from diarist.formats import rttm
from diarist.types import Span, Turn


def from_files(folder: Path, name: str) -> Answer:
    """What ``NAME.rttm`` and ``NAME.json`` of a folder say; either alone will do.

    Without an RTTM the turns are the JSON's segments; without a JSON no words are scored.

    Raises:
        InvalidOption: neither is there, or one cannot be read; the message names the file.
    """
    turns, said = folder / f"{name}.rttm", folder / f"{name}.json"
    if not turns.exists() and not said.exists():
        raise InvalidOption(f"{folder} has neither {turns.name} nor {said.name}: transcribe to it with -f json,rttm")
    return from_texts(
        _read(turns) if turns.exists() else None, _read(said) if said.exists() else None, str(turns), str(said)
    )


def from_texts(
    turns: str | None, said: str | None, turns_from: str = "the RTTM", said_from: str = "the JSON", took: float = 0.0
) -> Answer:
    """An answer of the text of an RTTM, of Diarist's JSON, or of both.

    Raises:
        InvalidOption: one cannot be read; the message says which, by what it is called here.
    """
    answer = Answer((), took=took) if said is None else _of_json(said, said_from, took)
    if turns is None:
        return answer
    try:
        spoken = rttm.parse(turns)
    except InvalidOption as error:
        raise InvalidOption(f"{turns_from}: {error}") from error
    return Answer(spoken, answer.stretches, answer.words, answer.duration, answer.took)


def _of_json(text: str, source: str, took: float) -> Answer:
    try:
        document = json.loads(text)
        rows = [(_stretch(row, str(row["speaker"])), row.get("words", ())) for row in document["conversation"]]
        words = [_stretch(word, said.speaker) for said, each in rows for word in each]
        duration = document.get("duration")
        timings = sum(float(stage["seconds"]) for stage in document.get("timings", ()))
        duration = None if duration is None else float(duration)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidOption(
            f"{source} is not an answer of diarist's ({type(error).__name__}: {error}): it needs conversation, a list"
            " of objects with speaker, start_time, end_time and text"
        ) from error
    stretches = tuple(said for said, _ in rows)
    return Answer(
        tuple(sorted(Turn(said.span, said.speaker) for said in stretches)),
        stretches,
        tuple(sorted(words, key=lambda word: word.span)),
        duration,
        took or timings,
    )


def _stretch(row: dict[str, object], speaker: str) -> Segment:
    start, end = float(str(row["start_time"])), float(str(row["end_time"]))
    return Segment(Span(start, end), speaker, str(row["text"]).strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"{path} cannot be read: {error}") from error
