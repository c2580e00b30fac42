"""Utterances in the order of the transcript, each handed on as soon as nothing that is still to come can change it.

A speaker's final name goes by whose words come first, and the words of several channels are one conversation: both are
known of an utterance once all that comes before it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from diarist.types import Diarization, Seconds, Utterance

OnFinal: TypeAlias = Callable[[tuple[Utterance, ...]], None]
"""Called with utterances that are final, in order, each of them once; what it raises ends the work."""


class UtteranceFinalizer:
    """Collects the utterances of one channel after the other.

    Args:
        channels: how many there are; speakers of different channels are different people.
        finalized: is told of what is final.
    """

    def __init__(self, channels: int, finalized: OnFinal | None = None) -> None:
        self._channels = channels
        self._finalized = finalized
        self._waiting: list[Utterance] = []
        self._final: list[Utterance] = []
        self._names: dict[str, str] = {}

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All that is final."""
        return tuple(self._final)

    def add(self, channel: int, utterances: Sequence[Utterance], until: Seconds | None) -> None:
        """The next utterances of a channel, in order of start.

        Args:
            channel: its number; channels come in order.
            utterances: those that will not change.
            until: no later utterance of this channel starts before this; None where there is none.
        """
        if self._channels == 1:
            self._release(utterances)
            return
        self._waiting += [utterance.renamed(self._key(channel, utterance.speaker)) for utterance in utterances]
        if channel < self._channels - 1:
            return
        ordered = sorted(self._waiting, key=lambda utterance: utterance.span)
        first = len(ordered) if until is None else sum(utterance.span.start < until for utterance in ordered)
        self._waiting = ordered[first:]
        self._release(ordered[:first])

    def finish(self, parts: Sequence[Diarization]) -> Diarization:
        """The diarization of all channels, with the names that the utterances have.

        Speakers of whom no word was understood come last.
        """
        joined = parts[0] if len(parts) == 1 else self._joined(parts)
        names = {speaker: self._name(speaker) for speaker in joined.speakers}
        turns = tuple(sorted(replace(turn, speaker=names[turn.speaker]) for turn in joined.turns))
        rows = {names[old]: row for row, old in enumerate(joined.speakers)}
        embeddings = joined.embeddings[[rows[name] for name in Diarization(turns).speakers]]
        return Diarization(turns, embeddings, diarizer=joined.diarizer)

    def _joined(self, parts: Sequence[Diarization]) -> Diarization:
        turns = tuple(
            sorted(
                replace(turn, speaker=self._key(channel, turn.speaker))
                for channel, part in enumerate(parts)
                for turn in part.turns
            )
        )
        voices = {
            self._key(channel, speaker): voice
            for channel, part in enumerate(parts)
            for speaker, voice in zip(part.speakers, part.embeddings, strict=True)
        }
        speakers = Diarization(turns).speakers
        embeddings = np.stack([voices[key] for key in speakers]) if speakers else np.zeros((0, 0), dtype=np.float32)
        return Diarization(turns, embeddings, diarizer=parts[0].diarizer)

    @staticmethod
    def _key(channel: int, speaker: str) -> str:
        return f"{channel} {speaker}"

    def _name(self, speaker: str) -> str:
        return self._names.setdefault(speaker, f"SPEAKER_{len(self._names):02d}")

    def _release(self, utterances: Sequence[Utterance]) -> None:
        final = tuple(utterance.renamed(self._name(utterance.speaker)) for utterance in utterances)
        self._final += final
        if final and self._finalized is not None:
            self._finalized(final)
