"""Decoding of any common audio or video file to 16 kHz float32 samples, in a separate process."""

from __future__ import annotations

from diarist.audio.decoding import DecodedRecording, decode, read_recording
from diarist.audio.limits import DecodeLimits

__all__ = ["DecodeLimits", "DecodedRecording", "decode", "read_recording"]
