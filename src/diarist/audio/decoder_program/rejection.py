"""The limits of a recording's sample rate, channels and duration, and the error for recordings that cannot be used."""

from __future__ import annotations

from .messages import MAX_CHANNELS

MIN_RATE, MAX_RATE = 4_000, 384_000
"""The supported sample rates in Hz: from the poorest telephone to the best recorder."""

DURATION_TOLERANCE_S = 0.5
"""The time by which a recording may exceed the limit, to allow for the padding of encoders."""


class RecordingRejected(Exception):
    """The recording cannot be used. ``code`` is the code of an error in ``diarist.errors``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_supported(rate: int, channels: int) -> None:
    """Raise ``RecordingRejected`` if the sample rate (Hz) or the number of channels is not supported."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise RecordingRejected(
            "unsupported_audio",
            f"The sample rate is {rate:,} Hz, but only {MIN_RATE:,} to {MAX_RATE:,} Hz are supported. Convert the "
            "recording to 16,000 Hz.",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise RecordingRejected(
            "unsupported_audio",
            f"The recording has {channels:,} channels, but only 1 to {MAX_CHANNELS} are supported. Mix it down to "
            "fewer channels.",
        )


def duration_error(max_duration_s: float) -> RecordingRejected:
    """Return the error for a recording that exceeds the limit."""
    return RecordingRejected(
        "audio_too_long", f"The recording is longer than the limit of {max_duration_s:,.0f} s. Split it."
    )
