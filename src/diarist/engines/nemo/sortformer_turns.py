"""Post-processing of Sortformer: turns from the probability of each speaker in each frame, and speaker hints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diarist.engines.fusion import Floats, Grid, diarization_of
from diarist.engines.multiscale.binarization import Binarization, speech_spans
from diarist.types import Diarization, Seconds, Span, Turn

UNIT: Seconds = 0.01
"""NeMo applies thresholds in steps of 10 ms, whatever the model's frames; this matters if offset is above onset."""

MIN_PROBABILITY = 0.1
"""A speaker whose probability is below this in all frames is not found, however many speakers are requested."""

LOWERING = 0.8
"""The factor by which the thresholds are lowered repeatedly if fewer speakers are found than requested."""

Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TurnFinder:
    """Finds the turns of one recording."""

    step: Seconds
    """The interval between two frames."""

    rule: Binarization
    duration: Seconds
    """The duration of the recording, at which turns are cut off."""

    def find(self, probability: Floats, least: int, most: int, diarizer: str) -> Diarization:
        """Return the turns of at least ``least`` speakers, if the probabilities allow it, and at most ``most``.

        Args:
            probability: The probability of each speaker, float32 (frames, speakers), 0..1.
            least: The minimum number of speakers. It is reached only by speakers whose probability is at least
                ``MIN_PROBABILITY`` in some frame.
            most: The maximum number of speakers. If there are more, each segment of the least active speakers is
                assigned to one of the others.
            diarizer: The name of the diarizer.
        """
        found = self._speakers(probability, range(probability.shape[1]), self.rule)
        if len(found) > most:
            probability, found = self._fold(probability, found, most)
        elif len(found) < least:
            found |= self._missing(probability, found, least - len(found))
        turns = [Turn(span, str(column)) for column, spans in found.items() for span in spans]
        voices = np.zeros((probability.shape[1], 0), dtype=np.float32)
        return diarization_of(turns, voices, probability, Grid(self.step), diarizer)

    def _speakers(self, probability: Floats, columns: range | list[int], rule: Binarization) -> dict[int, Spans]:
        """Return the segments of each column that has any."""
        units = max(1, round(self.step / UNIT))
        grid = Grid(self.step / units)
        # a segment at the end is filtered by its full duration, padding included, as in NeMo, and cut off afterwards
        beyond = len(probability) * self.step + abs(rule.pad_offset)
        found: dict[int, Spans] = {}
        for column in columns:
            spans = speech_spans(np.repeat(probability[:, column], units), grid, rule, beyond)
            if within := tuple(span.clamp(0.0, self.duration) for span in spans if span.start < self.duration):
                found[column] = within
        return found

    def _fold(self, probability: Floats, found: dict[int, Spans], most: int) -> tuple[Floats, dict[int, Spans]]:
        """Keep the ``most`` most active speakers and assign each segment of the others to the most probable of them.

        The segments are not dropped, because speech without a speaker is not transcribed, and the usual reason for too
        many speakers is that one person was detected as two.
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
        """Return up to ``wanted`` more speakers: those that get a turn by the smallest relaxation of the thresholds."""
        more: dict[int, Spans] = {}
        for rule in _concessions(self.rule):
            left = [column for column in range(probability.shape[1]) if column not in found and column not in more]
            heard = self._speakers(probability, left, rule)
            more |= {column: heard[column] for column in _most_active(heard)[: wanted - len(more)]}
            if len(more) == wanted:
                break
        return more


def _most_active(found: dict[int, Spans]) -> list[int]:
    """Return the columns sorted by the duration of their speech, the longest first."""
    return sorted(found, key=lambda column: (-sum(span.duration for span in found[column]), column))


def _concessions(rule: Binarization) -> list[Binarization]:
    """Return increasingly relaxed parameters: first short turns, then lower thresholds, finally both."""
    rules = [replace(rule, min_duration_on=0.0)]
    share = LOWERING
    while rule.onset * share >= MIN_PROBABILITY:
        rules.append(replace(rule, onset=rule.onset * share, offset=rule.offset * share))
        share *= LOWERING
    last = min(rule.onset, MIN_PROBABILITY)
    lowest = replace(rule, onset=last, offset=min(rule.offset, last), min_duration_on=0.0)
    return [*rules, replace(lowest, pad_onset=max(rule.pad_onset, 0.0), pad_offset=max(rule.pad_offset, 0.0))]
