"""The positions of frames in the recording, and the gaps between them."""

from __future__ import annotations

MIN_GAP_S = 0.2
"""Gaps in the timestamps of more than this are filled with silence, so that words keep their times. Shorter ones are
rounding errors."""

MAX_GAP_S = 600.0
"""If no header states the duration, a longer gap is considered a damaged timestamp."""


class Timeline:
    """Tracks the position of the next sample in the recording, and the silence to insert before it.

    Args:
        origin: The timestamp of the start of the recording in seconds; None is that of the first sample.
        end: The duration of the recording in seconds, or more; None is unknown.
        timestamped: Whether the timestamps show gaps.
    """

    def __init__(self, origin: float | None, end: float | None, *, timestamped: bool) -> None:
        self.position: float = 0.0
        self.leading_silence: float = 0.0
        """The silence before the first sample, in seconds."""

        self.gap_duration: float = 0.0
        """The total silence that was inserted, in seconds."""

        self._shift = None if origin is None else -origin
        self._end = end
        self._timestamped = timestamped

    def gap(self, timestamp: float | None) -> float:
        """Return the seconds of silence before the frame at ``timestamp``; an implausible jump moves the origin."""
        if timestamp is None or not self._timestamped:
            return 0.0
        if self._shift is None:
            self._shift = self.position - timestamp
        gap = timestamp + self._shift - self.position
        if abs(gap) <= MIN_GAP_S:
            return 0.0
        max_gap = MAX_GAP_S if self._end is None else self._end + 1.0 - self.position
        if 0 < gap <= max_gap:
            if self.position == 0.0:
                self.leading_silence = gap
            self.gap_duration += gap
            return gap
        self._shift -= gap
        return 0.0
