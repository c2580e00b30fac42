"""Seconds as whole milliseconds, and as a clock shows them."""

from __future__ import annotations

from diarist.types import Seconds


def milliseconds(time: Seconds) -> int:
    """The nearest whole millisecond, never below 0.

    Rounding keeps the order of times: what did not end before its start still does not.
    """
    return max(0, round(time * 1000))


def clock(time_ms: int, decimal: str = ".") -> str:
    """``01:02:03.004``: hours (two digits or more), minutes, seconds, milliseconds."""
    seconds, thousandths = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal}{thousandths:03d}"
