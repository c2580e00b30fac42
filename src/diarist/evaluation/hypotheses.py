"""Hypotheses: the transcripts that are scored, from Diarist itself, from files or from a running service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from diarist.errors import InvalidOption
from diarist.evaluation.segments import Segment, distribute
from diarist.formats import rttm
from diarist.types import Seconds, Span, Transcript, Turn


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Represents the output of any system for one recording."""

    turns: tuple[Turn, ...]
    """Who speaks when. Turns may overlap."""

    segments: tuple[Segment, ...] | None = None
    """What is said, in order of start. None if the system does not recognize words."""

    words: tuple[Segment, ...] = ()
    """The single words, in order of start. If there are none, the words of ``segments`` are spread over their time."""

    duration: Seconds | None = None
    """The duration of the recording, if it is known."""

    took: Seconds = 0.0
    """The processing time; 0 if it was not measured."""

    @property
    def timed_words(self) -> tuple[Segment, ...]:
        """The words with their times, estimated from ``segments`` if ``words`` is empty."""
        return self.words or distribute(self.segments or ())


def from_transcript(transcript: Transcript, took: Seconds = 0.0) -> Hypothesis:
    """Return the hypothesis for a transcript that Diarist made in ``took`` seconds."""
    return Hypothesis(
        transcript.diarization.turns,
        tuple(Segment(each.span, each.speaker, each.text) for each in transcript.utterances),
        tuple(Segment(word.span, word.speaker, word.text.strip()) for word in transcript.words),
        transcript.duration,
        took,
    )


def from_files(folder: Path, name: str) -> Hypothesis:
    """Return the hypothesis in ``NAME.rttm`` and ``NAME.json`` of a folder. One of the two files is enough.

    Without an RTTM file the turns are the segments of the JSON file. Without a JSON file no words are scored.

    Raises:
        InvalidOption: Neither file exists, or one cannot be read. The message names the file.
    """
    rttm_path, json_path = folder / f"{name}.rttm", folder / f"{name}.json"
    if not rttm_path.exists() and not json_path.exists():
        raise InvalidOption(
            f"{folder} has neither {rttm_path.name} nor {json_path.name}. Transcribe into this folder with -f json,rttm"
        )
    return from_texts(
        _read(rttm_path) if rttm_path.exists() else None,
        _read(json_path) if json_path.exists() else None,
        str(rttm_path),
        str(json_path),
    )


def from_texts(
    rttm_text: str | None,
    json_text: str | None,
    rttm_source: str = "the RTTM",
    json_source: str = "the JSON",
    took: Seconds = 0.0,
) -> Hypothesis:
    """Return the hypothesis in the text of an RTTM file, of a Diarist JSON file, or of both.

    Raises:
        InvalidOption: One of the texts cannot be read. The message names it by ``rttm_source`` or ``json_source``.
    """
    hypothesis = Hypothesis((), took=took) if json_text is None else _from_json(json_text, json_source, took)
    if rttm_text is None:
        return hypothesis
    try:
        turns = rttm.parse(rttm_text)
    except InvalidOption as error:
        raise InvalidOption(f"{rttm_source}: {error}") from error
    return Hypothesis(turns, hypothesis.segments, hypothesis.words, hypothesis.duration, hypothesis.took)


def _from_json(text: str, source: str, took: Seconds) -> Hypothesis:
    try:
        document = json.loads(text)
        rows = [(_segment(row, str(row["speaker"])), row.get("words", ())) for row in document["conversation"]]
        words = [_segment(word, segment.speaker) for segment, its_words in rows for word in its_words]
        duration = document.get("duration")
        timings = sum(float(stage["seconds"]) for stage in document.get("timings", ()))
        duration = None if duration is None else float(duration)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidOption(
            f"{source} is not a JSON transcript of Diarist ({type(error).__name__}: {error}). It must contain"
            " conversation, a list of objects with speaker, start_time, end_time and text"
        ) from error
    segments = tuple(segment for segment, _ in rows)
    return Hypothesis(
        tuple(sorted(Turn(segment.span, segment.speaker) for segment in segments)),
        segments,
        tuple(sorted(words, key=lambda word: word.span)),
        duration,
        took or timings,
    )


def _segment(row: dict[str, object], speaker: str) -> Segment:
    start, end = float(str(row["start_time"])), float(str(row["end_time"]))
    return Segment(Span(start, end), speaker, str(row["text"]).strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"{path} cannot be read: {error}") from error
