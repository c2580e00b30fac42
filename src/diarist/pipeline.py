"""A recording in, a transcript out. The service, its worker and the command line all call this."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from diarist.attribution import attribute, speech_of
from diarist.audio import DecodeLimits, decode
from diarist.calibration import count_probability
from diarist.errors import InvalidOption
from diarist.protocols import Engine
from diarist.types import (
    Audio,
    Diarization,
    Progress,
    Recognition,
    Seconds,
    SpeakerHints,
    Timing,
    TranscribeOptions,
    Transcript,
    Utterance,
    relabel,
)

logger = logging.getLogger(__name__)

WEIGHTS = {
    "decode": 0.02,
    "segmentation": 0.22,
    "embedding": 0.16,
    "clustering": 0.01,
    "recognition": 0.58,
    "attribution": 0.01,
}
"""Share of the time that each stage takes where somebody speaks all the time: what makes progress move evenly.

Processor time of the embedded engine with one thread, Whisper base, on 1, 5 and 20 minutes of conversation.
"""

DETECTION_S: Seconds = 16.0
"""Finding out the language takes as long as recognising this much speech."""


def transcribe(
    path: Path, engine: Engine, options: TranscribeOptions, progress: Progress, limits: DecodeLimits
) -> Transcript:
    """Who said what, when.

    Args:
        path: an audio or video file of any kind that is read.
        engine: loaded.
        options: what the caller asks for.
        progress: called with the stage's name and the part of the whole that is done, 0..1, never falling; what it
            raises (``Cancelled``) ends the work and goes through.
        limits: what decoding may take.

    Raises:
        InputError: the recording or an option cannot be used.
        DecoderFailed: the decoder died, or ran out of time or memory.
    """
    known = engine.recognizer.languages
    if options.language is not None and known and options.language not in known:
        raise InvalidOption(f"language {options.language!r} is not one that this model knows: {', '.join(known)}")
    meter = _Meter(progress)
    with meter.timed("decode"):
        channels = decode(path, limits, lambda done: meter.note("decode", done), options.channels)
    duration = max(audio.duration for audio in channels)
    hints = options.hints if options.channels == "mix" else SpeakerHints(num_speakers=1)
    parts: list[tuple[Diarization, Recognition]] = []
    for index, audio in enumerate(channels):
        meter.share(index, len(channels))
        parts.append(_read(audio, engine, options.language, hints, meter))
    with meter.timed("attribution"):
        diarization, utterances = _number(
            *_join([(diarized, attribute(said.words, diarized)) for diarized, said in parts])
        )
    least, most = hints.bounds()
    counted = None if least == most else count_probability(parts[0][0])
    heard = max((said for _, said in parts), key=lambda said: len(said.words))
    meter.finish()
    return Transcript(
        utterances, diarization, duration, heard.language, heard.language_probability, engine.name, meter.timings,
        next((model.name for model in engine.models if model.role == "recognition"), ""), engine.device,
        counted,
    )  # fmt: skip


def _read(
    audio: Audio, engine: Engine, language: str | None, hints: SpeakerHints, meter: _Meter
) -> tuple[Diarization, Recognition]:
    """Who and what, of one channel."""
    with meter.timed("diarization"):
        diarization = engine.diarizer.diarize(audio, hints, meter.note)
    speech = speech_of(diarization.turns)
    asked = 0.0 if language or len(engine.recognizer.languages) < 2 else DETECTION_S
    meter.spoken((sum(span.duration for span in speech) + asked) / audio.duration)
    with meter.timed("recognition"):
        recognition = engine.recognizer.recognize(audio, speech, language, meter.note)
    return diarization, recognition


def _join(parts: list[tuple[Diarization, tuple[Utterance, ...]]]) -> tuple[Diarization, tuple[Utterance, ...]]:
    """One conversation of all channels; speakers of different channels are different people."""
    if len(parts) == 1:
        return parts[0]
    names, turns = relabel(
        replace(turn, speaker=f"{channel} {turn.speaker}")
        for channel, (part, _) in enumerate(parts)
        for turn in part.turns
    )
    voices = {
        f"{channel} {speaker}": voice
        for channel, (part, _) in enumerate(parts)
        for speaker, voice in zip(part.speakers, part.embeddings, strict=True)
    }
    embeddings = np.stack([voices[name] for name in names]) if names else np.zeros((0, 0), dtype=np.float32)
    utterances = [
        utterance.renamed(names[f"{channel} {utterance.speaker}"])
        for channel, (_, said) in enumerate(parts)
        for utterance in said
    ]
    return Diarization(turns, embeddings, diarizer=parts[0][0].diarizer), tuple(
        sorted(utterances, key=lambda utterance: utterance.span)
    )


def _number(diarization: Diarization, utterances: tuple[Utterance, ...]) -> tuple[Diarization, tuple[Utterance, ...]]:
    """Speakers numbered as their words first appear; those of whom no word was understood come last."""
    order = dict.fromkeys((*(utterance.speaker for utterance in utterances), *diarization.speakers))
    names = {old: f"SPEAKER_{number:02d}" for number, old in enumerate(order)}
    turns = tuple(sorted(replace(turn, speaker=names[turn.speaker]) for turn in diarization.turns))
    rows = {names[old]: row for row, old in enumerate(diarization.speakers)}
    embeddings = diarization.embeddings[[rows[name] for name in Diarization(turns).speakers]]
    numbered = Diarization(turns, embeddings, diarizer=diarization.diarizer)
    return numbered, tuple(said.renamed(names[said.speaker]) for said in utterances)


class _Meter:
    """Makes one fraction that never falls of the stages' own, and notes how long each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0.0
        self._channel, self._channels = 0, 1
        self._weights = WEIGHTS
        self._seconds: dict[str, float] = {}

    def share(self, channel: int, channels: int) -> None:
        """The stages that follow are those of one of several channels."""
        self._channel, self._channels = channel, channels
        self._weights = WEIGHTS

    def spoken(self, share: float) -> None:
        """The part of the recording in which somebody speaks, once it is known: nothing else is recognised.

        Above 1 where finding out the language adds to it.
        """
        self._weights = {**WEIGHTS, "recognition": WEIGHTS["recognition"] * share}

    def note(self, stage: str, done: float) -> None:
        names = list(self._weights)
        before = sum(self._weights[name] for name in names[: names.index(stage)])
        whole = (before + self._weights[stage] * min(max(done, 0.0), 1.0)) / sum(self._weights.values())
        if self._channels > 1 and stage not in ("decode", "attribution"):
            first, last = WEIGHTS["decode"], 1.0 - WEIGHTS["attribution"]
            whole = first + (self._channel * (last - first) + whole - first) / self._channels
        self._done = max(self._done, whole)
        self._progress(stage, self._done)

    def finish(self) -> None:
        self._progress("attribution", 1.0)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started

    @property
    def timings(self) -> tuple[Timing, ...]:
        return tuple(Timing(stage, seconds) for stage, seconds in self._seconds.items())
