"""Serialization of transcripts, options, and models as JSON text. Each pair of functions is lossless.

The only exception is ``Diarization.activity``: frame scores are needed only for attribution, which is complete by then,
and would be far larger than the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from diarist.channels import ChannelChoice
from diarist.jobs.model import option_fields
from diarist.tracks import AudioTracks, Truncation
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
"""The version of the format of stored transcripts."""


def dump_transcript(transcript: Transcript) -> str:
    """Return a transcript as ASCII JSON. Floats keep every bit.

    Raises:
        ValueError: A number in the transcript is not finite.
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
            "warnings": transcript.warnings,
            "channels": None if transcript.channels is None else asdict(transcript.channels),
            "audio_tracks": None if transcript.audio_tracks is None else asdict(transcript.audio_tracks),
            "truncation": None if transcript.truncation is None else asdict(transcript.truncation),
            "timings": [[timing.stage, timing.seconds] for timing in transcript.timings],
            "turns": [[turn.span.start, turn.span.end, turn.speaker] for turn in transcript.diarization.turns],
            "embeddings": {"shape": embeddings.shape, "values": embeddings.ravel().tolist()},
            "utterances": [_utterance_fields(utterance) for utterance in transcript.utterances],
        }
    )


def load_transcript(text: str) -> Transcript:
    """Return the transcript that ``dump_transcript`` wrote, without frame activity.

    Raises:
        ValueError: The transcript was written by a newer release of Diarist.
    """
    data = json.loads(text)
    if data["version"] != VERSION:
        raise ValueError(
            f"a stored transcript has version {data['version']}, but this Diarist reads only version {VERSION}"
        )
    channels = data.get("channels")
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
        recognizer=data.get("recognizer", ""),  # early transcripts of version 1 lack these fields
        device=data.get("device", "cpu"),
        speakers_confidence=data.get("speakers_confidence"),
        warnings=tuple(data.get("warnings", ())),
        channels=None if channels is None else ChannelChoice(**channels),
        audio_tracks=None
        if (tracks := data.get("audio_tracks")) is None
        else AudioTracks(tuple(tracks["used"]), tracks["count"]),
        truncation=None if (truncation := data.get("truncation")) is None else Truncation(**truncation),
    )


def dump_utterance(utterance: Utterance) -> str:
    """Return an utterance as JSON.

    Raises:
        ValueError: A number in the utterance is not finite.
    """
    return _dump(_utterance_fields(utterance))


def load_utterance(text: str) -> Utterance:
    """Return the utterance that ``dump_utterance`` wrote."""
    return _utterance(json.loads(text))


def dump_timings(timings: tuple[Timing, ...]) -> str:
    """Return timings as JSON."""
    return _dump([[timing.stage, timing.seconds] for timing in timings])


def load_timings(text: str) -> tuple[Timing, ...]:
    """Return the timings that ``dump_timings`` wrote."""
    return tuple(Timing(stage, seconds) for stage, seconds in json.loads(text))


def dump_options(options: TranscribeOptions) -> str:
    """Return options as JSON."""
    return _dump(option_fields(options))


def load_options(text: str) -> TranscribeOptions:
    """Return the options that ``dump_options`` wrote."""
    data = json.loads(text)
    return TranscribeOptions(**{**data, "hints": SpeakerHints(**data["hints"])})


def dump_models(models: tuple[ModelInfo, ...]) -> str:
    """Return models as JSON."""
    return _dump([asdict(model) for model in models])


def load_models(text: str) -> tuple[ModelInfo, ...]:
    """Return the models that ``dump_models`` wrote."""
    return tuple(ModelInfo(**entry) for entry in json.loads(text))


def dump_texts(texts: tuple[str, ...]) -> str:
    """Return texts as JSON."""
    return _dump(texts)


def load_texts(text: str) -> tuple[str, ...]:
    """Return the texts that ``dump_texts`` wrote."""
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
