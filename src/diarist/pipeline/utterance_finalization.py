"""Finalization of utterances, in the order of the transcript: each one is released once later speech cannot change it.

A speaker's final name depends on the order in which speakers first say a word, and the words of several channels form
one conversation. Both are known for an utterance once everything before it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from diarist.types import Diarization, Seconds, Utterance

OnFinal: TypeAlias = Callable[[tuple[Utterance, ...]], None]
"""Called with utterances that are final, in order, each of them once. An exception that it raises ends the work."""


class UtteranceFinalizer:
    """Collects the utterances of one channel after the other.

    Args:
        channels: The number of channels; speakers of different channels are different people.
        on_final: Called with the utterances that are final.
    """

    def __init__(self, channels: int, on_final: OnFinal | None = None) -> None:
        self._channels = channels
        self._on_final = on_final
        self._pending: list[Utterance] = []
        self._final: list[Utterance] = []
        self._names: dict[str, str] = {}

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All utterances that are final."""
        return tuple(self._final)

    def add(self, channel: int, utterances: Sequence[Utterance], until: Seconds | None) -> None:
        """Add the next utterances of a channel, in order of start.

        Args:
            channel: The index of the channel; channels come in order.
            utterances: Utterances that will not change.
            until: No later utterance of this channel starts before this time; None if there is no later utterance.
        """
        if self._channels == 1:
            self._release(utterances)
            return
        self._pending += [utterance.renamed(self._key(channel, utterance.speaker)) for utterance in utterances]
        if channel < self._channels - 1:
            return
        ordered = sorted(self._pending, key=lambda utterance: utterance.span)
        first = len(ordered) if until is None else sum(utterance.span.start < until for utterance in ordered)
        self._pending = ordered[first:]
        self._release(ordered[:first])

    def finish(self, channels: Sequence[Diarization]) -> Diarization:
        """Return the diarization of all channels, with the speaker names of the utterances.

        Speakers without a recognized word come last.
        """
        combined = channels[0] if len(channels) == 1 else self._combined(channels)
        names = {speaker: self._name(speaker) for speaker in combined.speakers}
        turns = tuple(sorted(replace(turn, speaker=names[turn.speaker]) for turn in combined.turns))
        rows = {names[old]: row for row, old in enumerate(combined.speakers)}
        embeddings = combined.embeddings[[rows[name] for name in Diarization(turns).speakers]]
        return Diarization(turns, embeddings, diarizer=combined.diarizer)

    def _combined(self, channels: Sequence[Diarization]) -> Diarization:
        turns = tuple(
            sorted(
                replace(turn, speaker=self._key(channel, turn.speaker))
                for channel, diarization in enumerate(channels)
                for turn in diarization.turns
            )
        )
        by_speaker = {
            self._key(channel, speaker): embedding
            for channel, diarization in enumerate(channels)
            for speaker, embedding in zip(diarization.speakers, diarization.embeddings, strict=True)
        }
        speakers = Diarization(turns).speakers
        embeddings = np.stack([by_speaker[key] for key in speakers]) if speakers else np.zeros((0, 0), dtype=np.float32)
        return Diarization(turns, embeddings, diarizer=channels[0].diarizer)

    @staticmethod
    def _key(channel: int, speaker: str) -> str:
        return f"{channel} {speaker}"

    def _name(self, speaker: str) -> str:
        return self._names.setdefault(speaker, f"SPEAKER_{len(self._names):02d}")

    def _release(self, utterances: Sequence[Utterance]) -> None:
        final = tuple(utterance.renamed(self._name(utterance.speaker)) for utterance in utterances)
        self._final += final
        if final and self._on_final is not None:
            self._on_final(final)
