"""Conversion of seconds to whole milliseconds and to clock times."""

from __future__ import annotations

from diarist.types import Seconds


def milliseconds(time: Seconds) -> int:
    """Return the nearest whole millisecond, at least 0.

    Rounding keeps the order of times: an end that is not before its start still is not.
    """
    return max(0, round(time * 1000))


def clock(time_ms: int, decimal: str = ".") -> str:
    """Return a time such as ``01:02:03.004``: hours (at least two digits), minutes, seconds and milliseconds."""
    seconds, thousandths = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal}{thousandths:03d}"
