"""Recordings to samples: any common audio or video file to 16 kHz float32, read in a process of its own."""

from __future__ import annotations

from diarist.audio.decoding import DecodeLimits, decode

__all__ = ["DecodeLimits", "decode"]
