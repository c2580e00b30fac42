"""The start of the recording, taken from the timestamps of its packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_HELD_BYTES = 2**25
"""The maximum memory for the packets of the audio track that precede the first packet of another track. A longer wait
means that the other track has no packets."""

PACKET_OVERHEAD_BYTES = 1_024
"""The memory that a packet takes besides its contents, at most."""


def read_to_start(av: Any, container: Any, packets: Iterator[Any], track: int) -> tuple[float | None, list[Any]]:
    """Read packets until all audio and video tracks have begun.

    FFmpeg's own start times are not used: it derives that of a video track by means of its decoder, which is not
    permitted, and otherwise assumes the start of another track. An audio track may be stored many seconds ahead of a
    video track that starts earlier, since an encoder of video delays its packets.

    Returns:
        The earliest time of the first packets in seconds, or None if no packet has a timestamp, and the packets of the
        track with index ``track`` that were read.
    """
    missing = {
        stream.index
        for stream in container.streams
        if stream.type in {"audio", "video"} and not stream.disposition & av.stream.Disposition.attached_pic
    }
    start: float | None = None
    held: list[Any] = []
    held_bytes = 0
    while missing and held_bytes <= MAX_HELD_BYTES and (packet := next(packets, None)) is not None:
        if packet.stream.index == track:
            held.append(packet)
            held_bytes += packet.size + PACKET_OVERHEAD_BYTES
        timestamp = packet.dts if packet.pts is None else packet.pts
        # An edit list cuts out the packets that are to be discarded.
        if packet.stream.index in missing and timestamp is not None and packet.time_base and not packet.is_discard:
            missing.discard(packet.stream.index)
            time = float(timestamp * packet.time_base)
            start = time if start is None else min(start, time)
    return start, held
