"""From the probability of each speaker in each frame to turns, of as many speakers as the caller asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diarist.engines.fusion import Floats, Grid, build_diarization
from diarist.engines.multiscale.binarization import Binarization, speech_spans
from diarist.types import Diarization, Seconds, Span, Turn

UNIT: Seconds = 0.01
"""NeMo decides in units of 10 ms, whatever the model's frames: with an offset above the onset it makes a difference."""

MIN_PROBABILITY = 0.1
"""A speaker who is less probable than this throughout is not found, however many are asked for."""

LOWERING = 0.8
"""Where speakers are missing, thresholds are lowered to this share at a time."""

Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TurnFinder:
    """Finds the turns of one recording."""

    step: Seconds
    """From one frame to the next."""

    rule: Binarization
    duration: Seconds
    """Of the recording; turns end with it."""

    def find(self, probability: Floats, least: int, most: int, diarizer: str) -> Diarization:
        """Turns of at least ``least`` speakers, where the frames know of so many, and at most ``most``.

        Args:
            probability: of each speaker, float32 (frames, speakers), 0..1.
            least: as many speakers get a turn, as far as each is ``MIN_PROBABILITY`` somewhere.
            most: the least active of more speakers are taken for one of the others, stretch by stretch.
            diarizer: the name of what found the probabilities.
        """
        found = self._speakers(probability, range(probability.shape[1]), self.rule)
        if len(found) > most:
            probability, found = self._fold(probability, found, most)
        elif len(found) < least:
            found |= self._missing(probability, found, least - len(found))
        turns = [Turn(span, str(column)) for column, spans in found.items() for span in spans]
        voices = np.zeros((probability.shape[1], 0), dtype=np.float32)
        return build_diarization(turns, voices, probability, Grid(self.step), diarizer)

    def _speakers(self, probability: Floats, columns: range | list[int], rule: Binarization) -> dict[int, Spans]:
        """The stretches of each column that has any."""
        units = max(1, round(self.step / UNIT))
        grid = Grid(self.step / units)
        # what reaches the end is judged by its full length, padding included, as NeMo does, and cut afterwards
        beyond = len(probability) * self.step + abs(rule.pad_offset)
        found: dict[int, Spans] = {}
        for column in columns:
            spans = speech_spans(np.repeat(probability[:, column], units), grid, rule, beyond)
            if within := tuple(span.clamp(0.0, self.duration) for span in spans if span.start < self.duration):
                found[column] = within
        return found

    def _fold(self, probability: Floats, found: dict[int, Spans], most: int) -> tuple[Floats, dict[int, Spans]]:
        """The ``most`` most active speakers; the others' speech is that of whoever of them is most probable there.

        It goes to somebody, since what nobody says is not transcribed: one voice taken for two is the usual reason for
        there being too many.
        """
        ranked = _most_active(found)
        kept, others = sorted(ranked[:most]), ranked[most:]
        folded = probability.copy()
        for other in others:
            for span in found[other]:
                first = min(int(span.start / self.step), len(probability) - 1)
                stop = int(np.ceil(span.end / self.step))
                heir = kept[int(probability[first:stop, kept].mean(axis=0).argmax())]
                np.maximum(folded[first:stop, heir], probability[first:stop, other], out=folded[first:stop, heir])
        return folded, self._speakers(folded, kept, self.rule)

    def _missing(self, probability: Floats, found: dict[int, Spans], wanted: int) -> dict[int, Spans]:
        """Up to ``wanted`` speakers more: those that get a turn by the smallest concession."""
        more: dict[int, Spans] = {}
        for rule in _concessions(self.rule):
            left = [column for column in range(probability.shape[1]) if column not in found and column not in more]
            heard = self._speakers(probability, left, rule)
            more |= {column: heard[column] for column in _most_active(heard)[: wanted - len(more)]}
            if len(more) == wanted:
                break
        return more


def _most_active(found: dict[int, Spans]) -> list[int]:
    """Columns by how long they speak, the longest first."""
    return sorted(found, key=lambda column: (-sum(span.duration for span in found[column]), column))


def _concessions(rule: Binarization) -> list[Binarization]:
    """Short turns first, then lower thresholds, at last both."""
    rules = [replace(rule, min_duration_on=0.0)]
    share = LOWERING
    while rule.onset * share >= MIN_PROBABILITY:
        rules.append(replace(rule, onset=rule.onset * share, offset=rule.offset * share))
        share *= LOWERING
    last = min(rule.onset, MIN_PROBABILITY)
    lowest = replace(rule, onset=last, offset=min(rule.offset, last), min_duration_on=0.0)
    return [*rules, replace(lowest, pad_onset=max(rule.pad_onset, 0.0), pad_offset=max(rule.pad_offset, 0.0))]
