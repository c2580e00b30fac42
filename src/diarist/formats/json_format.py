"""The JSON format, which is the response body of ``POST /diarize``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from diarist.channels import ChannelChoice
from diarist.formats.extras import NO_EXTRAS, Extras
from diarist.formats.timestamps import milliseconds
from diarist.tracks import AudioTracks, Truncation
from diarist.types import Seconds, Transcript, Utterance, Word

Member = Mapping[str, str | float | None]
Value = str | float | None | Sequence[str] | Member | Sequence[Member] | Mapping[str, float | Sequence[int]]


def render(transcript: Transcript, extras: Extras = NO_EXTRAS) -> str:
    """Return a JSON object with one segment per line. Non-ASCII characters are not escaped.

    The keys of a segment are ``speaker``, ``start_time`` and ``end_time`` (in seconds, rounded to milliseconds) and
    ``text``. With ``extras.words`` it also has ``words``, each with ``text``, ``start_time``, ``end_time``,
    ``confidence`` and ``speaker_confidence``; the joined texts of the words are the text of the segment. With
    ``extras.details`` the object has more keys besides ``conversation``, one per line, with facts about the recording
    and its processing.
    """
    lines = [_dump(_segment(utterance, words=extras.words)) for utterance in transcript.utterances]
    conversation = "[" + ",".join(f"\n  {line}" for line in lines) + ("\n" if lines else "") + "]"
    members = [f'"conversation": {conversation}']
    if extras.details:
        members += [f'"{name}": {_dump(value)}' for name, value in _details(transcript).items()]
    return "{" + ",\n ".join(members) + "}\n"


def _details(transcript: Transcript) -> dict[str, Value]:
    probability = transcript.language_probability
    speakers_confidence = transcript.speakers_confidence
    tracks, truncation = transcript.audio_tracks, transcript.truncation
    timings: list[Member] = [{"stage": each.stage, "seconds": _rounded(each.seconds)} for each in transcript.timings]
    return {
        "duration": _rounded(transcript.duration),
        "language": transcript.language,
        "language_probability": None if probability is None else _round_probability(probability),
        "speakers": transcript.speakers,
        "speakers_confidence": None if speakers_confidence is None else _round_probability(speakers_confidence),
        "engine": transcript.engine,
        "diarizer": transcript.diarization.diarizer or None,
        "recognizer": transcript.recognizer or None,
        "device": transcript.device,
        "channels": None if transcript.channels is None else _channels(transcript.channels),
        "audio_tracks": None if tracks is None else _tracks(tracks),
        "truncation": None if truncation is None else _truncation(truncation),
        "warnings": transcript.warnings,
        "timings": timings,
    }


def _tracks(tracks: AudioTracks) -> Mapping[str, float | Sequence[int]]:
    return {"used": tracks.used, "count": tracks.count}


def _truncation(truncation: Truncation) -> Member:
    return {"available": _rounded(truncation.available), "stated": _rounded(truncation.stated)}


def _channels(choice: ChannelChoice) -> Member:
    return {"requested": choice.requested, "used": choice.used, "reason": choice.reason}


def _dump(value: Value | Mapping[str, Value]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _segment(utterance: Utterance, *, words: bool) -> dict[str, Value]:
    segment: dict[str, Value] = {
        "speaker": utterance.speaker,
        "start_time": _rounded(utterance.span.start),
        "end_time": _rounded(utterance.span.end),
        "text": utterance.text,
    }
    if words:
        texts = _texts(utterance)
        segment["words"] = [_word(word, text) for word, text in zip(utterance.words, texts, strict=True)]
    return segment


def _texts(utterance: Utterance) -> list[str]:
    """Return the texts of the words, without the white space that was stripped from the ends of the utterance."""
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


def _word(word: Word, text: str) -> Member:
    return {
        "text": text,
        "start_time": _rounded(word.span.start),
        "end_time": _rounded(word.span.end),
        "confidence": _round_probability(word.confidence),
        "speaker_confidence": _round_probability(word.speaker_confidence),
    }


def _rounded(time: Seconds) -> float:
    return milliseconds(time) / 1000


def _round_probability(value: float) -> float | None:
    """Round a probability to 3 digits, and replace NaN, which JSON cannot represent, by None."""
    return round(float(value), 3) if math.isfinite(value) else None
