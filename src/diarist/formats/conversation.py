"""JSON: the answer of ``POST /diarize``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from diarist.formats.times import milliseconds
from diarist.types import Seconds, Transcript, Utterance, Word

Value = str | float | None | Sequence[Mapping[str, str | float | None]]


def render(transcript: Transcript, *, words: bool = False) -> str:
    """A JSON object with one segment a line, not ASCII-escaped.

    Keys of a segment: ``speaker``, ``start_time`` and ``end_time`` (seconds, whole milliseconds) and ``text``; with
    ``words`` also ``words``, each with ``text``, ``start_time``, ``end_time``, ``confidence`` and
    ``speaker_confidence``. The words' texts joined give the segment's text.
    """
    lines = [
        json.dumps(_segment(utterance, words=words), ensure_ascii=False, allow_nan=False)
        for utterance in transcript.utterances
    ]
    return '{"conversation": [' + ",".join(f"\n  {line}" for line in lines) + ("\n" if lines else "") + "]}\n"


def _segment(utterance: Utterance, *, words: bool) -> dict[str, Value]:
    segment: dict[str, Value] = {
        "speaker": utterance.speaker,
        "start_time": _time(utterance.span.start),
        "end_time": _time(utterance.span.end),
        "text": utterance.text,
    }
    if words:
        texts = _texts(utterance)
        segment["words"] = [_word(word, text) for word, text in zip(utterance.words, texts, strict=True)]
    return segment


def _texts(utterance: Utterance) -> list[str]:
    """The words' texts without the white space that the utterance's own text has lost at its ends."""
    texts = [word.text for word in utterance.words]
    for position, text in enumerate(texts):
        texts[position] = text.lstrip()
        if texts[position]:
            break
    for position in reversed(range(len(texts))):
        texts[position] = texts[position].rstrip()
        if texts[position]:
            break
    return texts


def _word(word: Word, text: str) -> dict[str, str | float | None]:
    return {
        "text": text,
        "start_time": _time(word.span.start),
        "end_time": _time(word.span.end),
        "confidence": _share(word.confidence),
        "speaker_confidence": _share(word.speaker_confidence),
    }


def _time(time: Seconds) -> float:
    return milliseconds(time) / 1000


def _share(value: float) -> float | None:
    """Rounded to what such numbers are worth; null where a model gave none, since JSON knows no NaN."""
    return round(float(value), 3) if math.isfinite(value) else None
