"""Decoding of any common audio or video file to 16 kHz float32 samples, in a separate process."""

from __future__ import annotations

from diarist.audio.decoding import DecodeLimits, decode

__all__ = ["DecodeLimits", "decode"]
