"""Muting of parts of a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diarist.types import Audio, Samples, Seconds, Span

_FADE_S: Seconds = 0.01
"""The sound fades out and in within this time inside of a muted span, since an abrupt edge would be a click."""


def mute(audio: Audio, spans: Sequence[Span], first: int, stop: int) -> Audio:
    """Return a copy with silence in the spans, and outside of the samples from ``first`` to before ``stop``.

    The copy is as long as the audio, but what is outside of these samples takes no memory.

    Args:
        audio: The recording.
        spans: Ordered, disjoint spans.
        first: The first sample to copy; it may be negative.
        stop: The end of the samples to copy; it may be beyond the end of the audio.
    """
    samples: Samples = np.zeros(len(audio.samples), dtype=np.float32)
    part = samples[max(first, 0) : max(stop, 0)]
    part[:] = audio.part(first, stop)
    offset = max(first, 0)
    for span in spans:
        begin, end = (min(max(round(at * audio.rate) - offset, 0), len(part)) for at in (span.start, span.end))
        fade = min(round(_FADE_S * audio.rate), (end - begin) // 2)
        ramp = np.linspace(1.0, 0.0, fade, dtype=np.float32)
        part[begin : begin + fade] *= ramp
        part[end - fade : end] *= ramp[::-1]
        part[begin + fade : end - fade] = 0.0
    return Audio(samples, audio.rate)
