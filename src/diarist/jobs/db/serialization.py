"""What the job store keeps as JSON text: transcripts, options, models. Each pair of functions is lossless.

The one exception is ``Diarization.activity``: frame scores are evidence for attribution, which is over by then, and
would be far larger than the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from diarist.types import (
    Diarization,
    ModelInfo,
    Span,
    SpeakerHints,
    Timing,
    TranscribeOptions,
    Transcript,
    Turn,
    Utterance,
    Word,
)

VERSION = 1
"""Of the form of a stored transcript."""


def dump_transcript(transcript: Transcript) -> str:
    """A transcript as ASCII JSON; floats keep every bit.

    Raises:
        ValueError: a number in it is not finite.
    """
    embeddings = transcript.diarization.embeddings
    return _dump(
        {
            "version": VERSION,
            "duration": transcript.duration,
            "language": transcript.language,
            "language_probability": transcript.language_probability,
            "engine": transcript.engine,
            "diarizer": transcript.diarization.diarizer,
            "recognizer": transcript.recognizer,
            "device": transcript.device,
            "speakers_confidence": transcript.speakers_confidence,
            "timings": [[timing.stage, timing.seconds] for timing in transcript.timings],
            "turns": [[turn.span.start, turn.span.end, turn.speaker] for turn in transcript.diarization.turns],
            "embeddings": {"shape": embeddings.shape, "values": embeddings.ravel().tolist()},
            "utterances": [_utterance_fields(utterance) for utterance in transcript.utterances],
        }
    )


def load_transcript(text: str) -> Transcript:
    """The transcript that ``dump_transcript`` wrote, without frame activity.

    Raises:
        ValueError: it was written by a newer Diarist.
    """
    data = json.loads(text)
    if data["version"] != VERSION:
        raise ValueError(f"a stored transcript has version {data['version']}, and this Diarist reads {VERSION}")
    embeddings = np.asarray(data["embeddings"]["values"], dtype=np.float32).reshape(data["embeddings"]["shape"])
    return Transcript(
        utterances=tuple(_utterance(entry) for entry in data["utterances"]),
        diarization=Diarization(
            turns=tuple(Turn(Span(start, end), speaker) for start, end, speaker in data["turns"]),
            embeddings=embeddings,
            diarizer=data.get("diarizer", ""),
        ),
        duration=data["duration"],
        language=data["language"],
        language_probability=data["language_probability"],
        engine=data["engine"],
        timings=tuple(Timing(stage, seconds) for stage, seconds in data["timings"]),
        recognizer=data.get("recognizer", ""),  # version 1 began without these four
        device=data.get("device", "cpu"),
        speakers_confidence=data.get("speakers_confidence"),
    )


def dump_utterance(utterance: Utterance) -> str:
    """An utterance as JSON.

    Raises:
        ValueError: a number in it is not finite.
    """
    return _dump(_utterance_fields(utterance))


def load_utterance(text: str) -> Utterance:
    """The utterance that ``dump_utterance`` wrote."""
    return _utterance(json.loads(text))


def dump_timings(timings: tuple[Timing, ...]) -> str:
    """Timings as JSON."""
    return _dump([[timing.stage, timing.seconds] for timing in timings])


def load_timings(text: str) -> tuple[Timing, ...]:
    """The timings that ``dump_timings`` wrote."""
    return tuple(Timing(stage, seconds) for stage, seconds in json.loads(text))


def dump_options(options: TranscribeOptions) -> str:
    """Options as JSON."""
    return _dump(asdict(options))


def load_options(text: str) -> TranscribeOptions:
    """The options that ``dump_options`` wrote."""
    data = json.loads(text)
    return TranscribeOptions(**{**data, "hints": SpeakerHints(**data["hints"])})


def dump_models(models: tuple[ModelInfo, ...]) -> str:
    """Models as JSON."""
    return _dump([asdict(model) for model in models])


def load_models(text: str) -> tuple[ModelInfo, ...]:
    """The models that ``dump_models`` wrote."""
    return tuple(ModelInfo(**entry) for entry in json.loads(text))


def dump_texts(texts: tuple[str, ...]) -> str:
    """Texts as JSON."""
    return _dump(texts)


def load_texts(text: str) -> tuple[str, ...]:
    """The texts that ``dump_texts`` wrote."""
    return tuple(json.loads(text))


def _utterance_fields(utterance: Utterance) -> dict[str, Any]:
    return {
        "speaker": utterance.speaker,
        "words": [
            [word.text, word.span.start, word.span.end, word.confidence, word.speaker_confidence]
            for word in utterance.words
        ],
    }


def _utterance(fields: dict[str, Any]) -> Utterance:
    return Utterance(tuple(_word(fields["speaker"], *word) for word in fields["words"]))


def _word(speaker: str, text: str, start: float, end: float, confidence: float, speaker_confidence: float) -> Word:
    return Word(text, Span(start, end), speaker, confidence, speaker_confidence)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
