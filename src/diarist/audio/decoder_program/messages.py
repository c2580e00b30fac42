"""The messages from the decoder process to its parent."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

MESSAGE = struct.Struct("<cBIf")
"""The header of a message: kind, number of channels, length, and the fraction of the recording that is done (0..1).

The kinds are ``O`` (opened) and ``D`` (done), with ``length`` bytes of JSON; ``E`` (rejected), with ``length`` bytes of
JSON with ``code`` and ``message``; ``L`` (layout), with ``length`` bytes of JSON with ``positions``, FFmpeg's names of
the positions of the channels that follow (``FL``, ``FR``, ``FC``, ``LFE``, ...); ``S`` (samples), with ``length``
float32 samples per channel, interleaved; and ``Z`` (silence), ``length`` samples long."""

SAMPLE_RATE = 16_000
BLOCK_SAMPLES = SAMPLE_RATE
"""The maximum number of samples per channel in one message: one second."""

MAX_CHANNELS = 16


class MessageWriter:
    """Writes messages. ``done`` is the fraction of the recording that is done (0..1), which every message contains."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._layout = ""
        self.done = 0.0

    def write_json(self, kind: bytes, **fields: object) -> None:
        body = json.dumps(fields).encode()
        self._write(kind, 0, len(body), body)

    def write_samples(self, frame: Any) -> None:
        channels = frame.layout.nb_channels
        if frame.layout.name != self._layout:
            self._layout = frame.layout.name
            self.write_json(b"L", positions=[channel.name for channel in frame.layout.channels])
        size_bytes = frame.samples * channels * 4
        self._write(b"S", channels, frame.samples, memoryview(frame.planes[0])[:size_bytes])

    def write_silence(self, samples: int) -> None:
        for start in range(0, samples, BLOCK_SAMPLES):
            self._write(b"Z", 0, min(BLOCK_SAMPLES, samples - start), b"")

    def _write(self, kind: bytes, channels: int, length: int, body: bytes | memoryview) -> None:
        self._stream.write(MESSAGE.pack(kind, channels, length, min(max(self.done, 0.0), 1.0)))
        self._stream.write(body)
        self._stream.flush()
