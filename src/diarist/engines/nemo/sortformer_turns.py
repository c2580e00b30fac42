"""Post-processing of Sortformer: turns from the probability of each speaker in each frame, and speaker hints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diarist.engines.multiscale.binarization import Binarization, speech_spans
from diarist.engines.speaker_activity import Floats, Grid, build_diarization
from diarist.types import Diarization, Seconds, Span, Turn

DECISION_STEP: Seconds = 0.01
"""NeMo applies thresholds in steps of 10 ms, whatever the model's frames; this matters if offset is above onset."""

MIN_PROBABILITY = 0.1
"""A speaker whose probability is below this in all frames is not found, however many speakers are requested."""

THRESHOLD_FACTOR = 0.8
"""The factor by which the thresholds are lowered repeatedly if fewer speakers are found than requested."""

Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TurnFinder:
    """Finds the turns of one recording."""

    frame_step: Seconds
    """The interval between two frames."""

    binarization: Binarization
    duration: Seconds
    """The duration of the recording, at which turns are cut off."""

    def find(self, probability: Floats, min_speakers: int, max_speakers: int, diarizer: str) -> Diarization:
        """Return the turns of ``min_speakers`` to ``max_speakers`` speakers, as far as the probabilities allow it.

        Args:
            probability: The probability of each speaker, float32 (frames, speakers), 0..1.
            min_speakers: The minimum number of speakers. It is reached only by speakers whose probability is at least
                ``MIN_PROBABILITY`` in some frame.
            max_speakers: The maximum number of speakers. If there are more, each segment of the least active speakers
                is assigned to one of the others.
            diarizer: The name of the diarizer.
        """
        found = self._find_spans(probability, range(probability.shape[1]), self.binarization)
        if len(found) > max_speakers:
            probability, found = self._merge_extra_speakers(probability, found, max_speakers)
        elif len(found) < min_speakers:
            found |= self._find_more_speakers(probability, found, min_speakers - len(found))
        turns = [Turn(span, str(column)) for column, spans in found.items() for span in spans]
        embeddings = np.zeros((probability.shape[1], 0), dtype=np.float32)
        return build_diarization(turns, embeddings, probability, Grid(self.frame_step), diarizer)

    def _find_spans(
        self, probability: Floats, columns: range | list[int], binarization: Binarization
    ) -> dict[int, Spans]:
        """Return the segments of each column that has any."""
        repeats = max(1, round(self.frame_step / DECISION_STEP))
        grid = Grid(self.frame_step / repeats)
        # a segment at the end is filtered by its full duration, padding included, as in NeMo, and cut off afterwards
        end = len(probability) * self.frame_step + abs(binarization.pad_offset)
        found: dict[int, Spans] = {}
        for column in columns:
            spans = speech_spans(np.repeat(probability[:, column], repeats), grid, binarization, end)
            if spans_within := tuple(span.clamp(0.0, self.duration) for span in spans if span.start < self.duration):
                found[column] = spans_within
        return found

    def _merge_extra_speakers(
        self, probability: Floats, found: dict[int, Spans], max_speakers: int
    ) -> tuple[Floats, dict[int, Spans]]:
        """Keep the ``max_speakers`` most active speakers, and assign each segment of the others to one of them.

        A segment is assigned to the speaker who is most probable there. It is not dropped, because speech without a
        speaker is not transcribed, and the usual reason for too many speakers is that one person was detected as two.
        """
        ranked = _most_active(found)
        kept, extra = sorted(ranked[:max_speakers]), ranked[max_speakers:]
        merged = probability.copy()
        for column in extra:
            for span in found[column]:
                first = min(int(span.start / self.frame_step), len(probability) - 1)
                stop = int(np.ceil(span.end / self.frame_step))
                target = kept[int(probability[first:stop, kept].mean(axis=0).argmax())]
                np.maximum(merged[first:stop, target], probability[first:stop, column], out=merged[first:stop, target])
        return merged, self._find_spans(merged, kept, self.binarization)

    def _find_more_speakers(self, probability: Floats, found: dict[int, Spans], count: int) -> dict[int, Spans]:
        """Return up to ``count`` more speakers: those that get a turn by the smallest relaxation of the thresholds."""
        added: dict[int, Spans] = {}
        for binarization in _relaxed_binarizations(self.binarization):
            remaining = [
                column for column in range(probability.shape[1]) if column not in found and column not in added
            ]
            candidates = self._find_spans(probability, remaining, binarization)
            added |= {column: candidates[column] for column in _most_active(candidates)[: count - len(added)]}
            if len(added) == count:
                break
        return added


def _most_active(found: dict[int, Spans]) -> list[int]:
    """Return the columns sorted by the duration of their speech, the longest first."""
    return sorted(found, key=lambda column: (-sum(span.duration for span in found[column]), column))


def _relaxed_binarizations(binarization: Binarization) -> list[Binarization]:
    """Return increasingly relaxed parameters: first short turns, then lower thresholds, finally both."""
    relaxed = [replace(binarization, min_duration_on=0.0)]
    factor = THRESHOLD_FACTOR
    while binarization.onset * factor >= MIN_PROBABILITY:
        relaxed.append(replace(binarization, onset=binarization.onset * factor, offset=binarization.offset * factor))
        factor *= THRESHOLD_FACTOR
    lowest_onset = min(binarization.onset, MIN_PROBABILITY)
    lowest = replace(
        binarization, onset=lowest_onset, offset=min(binarization.offset, lowest_onset), min_duration_on=0.0
    )
    return [
        *relaxed,
        replace(lowest, pad_onset=max(binarization.pad_onset, 0.0), pad_offset=max(binarization.pad_offset, 0.0)),
    ]
