"""Timestamps of containers whose clock may jump: MPEG transport and program streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_JUMP_S = 10.0
"""The maximum distance between the timestamps of neighboring packets. A longer one is a jump of the clock, as for the
option ``dts_delta_threshold`` of the ``ffmpeg`` program."""

MAX_REORDERING_S = 0.5
"""The maximum step back within a track. A longer one is a jump of the clock."""


class ContinuousClock:
    """Moves timestamps so that the time continues where the clock of a recording jumps.

    The clock jumps where recordings were joined, where a broadcast changes its source, and at the cells of a DVD.
    Around a jump, packets of the old and the new clock may alternate, so every track has an offset of its own. The
    tracks that follow the same jump get the same offset, which keeps them synchronous.
    """

    def __init__(self) -> None:
        self._offsets: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._newest_offset = 0.0
        self._end: float | None = None
        """The end of what was read, in seconds on the continuous time."""

    def offset(self, track: int, timestamp: float, duration: float, *, in_order: bool) -> float:
        """Return the seconds to add to the timestamps of a packet.

        ``in_order`` is whether ``timestamp`` cannot be lower than that of the packet before it in the same track.
        """
        offset = self._offsets.get(track, self._newest_offset)
        last = self._last.get(track) if in_order else None
        if self._end is not None and not self._is_next(timestamp + offset, last):
            if self._is_next(timestamp + self._newest_offset, last):
                offset = self._newest_offset
            elif last is None or not last - MAX_REORDERING_S <= timestamp + offset <= self._end:
                offset = self._newest_offset = self._end - timestamp
            # Otherwise the packet only arrives late, such as the last one of a track that ends early.
        time = timestamp + offset
        self._offsets[track] = offset
        self._last[track] = time
        self._end = time + duration if self._end is None else max(self._end, time + duration)
        return offset

    def _is_next(self, time: float, last: float | None) -> bool:
        """Return whether a packet at ``time`` may follow what was read, ``last`` being the packet before it."""
        assert self._end is not None
        return abs(time - self._end) <= MAX_JUMP_S and (last is None or time >= last - MAX_REORDERING_S)


def with_continuous_clock(packets: Iterator[Any]) -> Iterator[Any]:
    """Yield all packets, those of audio and video tracks with continuous timestamps."""
    clock = ContinuousClock()
    for packet in packets:
        timestamp = packet.pts if packet.dts is None else packet.dts
        kind = packet.stream.type
        if timestamp is not None and packet.time_base and kind in {"audio", "video"}:
            seconds = clock.offset(
                packet.stream.index, float(timestamp * packet.time_base),
                float((packet.duration or 0) * packet.time_base),
                in_order=kind == "audio" or packet.dts is not None,
            )  # fmt: skip
            ticks = round(seconds / packet.time_base)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
        yield packet
