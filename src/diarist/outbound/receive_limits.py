"""Limits on what another machine sends, so that it cannot keep this one busy until the deadline of the exchange.

A deadline and a maximum size are not enough: a server can send responses of status 100 without end, which precede the
real one, or a body a few bytes at a time, and every piece costs about as much work as one of many kilobytes.
"""

from __future__ import annotations

from diarist.errors import UrlUnreachable, UrlUnusable
from diarist.types import Seconds

MAX_HEAD_BYTES = 256 * 2**10
"""The maximum size of everything before the body: the head of the response, and of those of status 1xx before it."""

MIN_BYTES_PER_S = 1_000
"""The lowest average rate of a body. Speech is not intelligible at a lower one with any codec that is read here."""

RATE_WINDOW_S: Seconds = 60.0
"""The time over which the rate is averaged. Only the time that is spent waiting for the server counts."""

MIN_PIECE_BYTES = 128
"""The lowest average size of the pieces of a body. The smallest packets that networks have carry 500 bytes."""

JUDGED_PIECES = 10_000
"""The number of pieces before their size matters, so that a small recording may come in any."""


class ReceiveLimits:
    """Checks one response, and the redirects that lead to it, while they are received.

    Call ``begin_head`` before each of them, and ``begin_body`` when its head is complete.

    Args:
        rate_window_s: The time over which the rate of the body is averaged.
    """

    def __init__(self, rate_window_s: Seconds = RATE_WINDOW_S) -> None:
        self._rate_window_s = rate_window_s
        self._in_body = False
        self._head_bytes = 0
        self._window_bytes = 0
        self._waited_s: Seconds = 0.0
        self._body_bytes = 0
        self._pieces = 0

    def begin_head(self) -> None:
        """Note that a response is about to begin."""
        self._in_body = False

    def begin_body(self) -> None:
        """Note that the head of the response is complete."""
        self._in_body = True

    def count_received(self, size_bytes: int, waited_s: Seconds) -> None:
        """Count bytes from the network, and the time that they took to arrive.

        Raises:
            UrlUnusable: What precedes the body is too large.
            UrlUnreachable: The body arrives too slowly.
        """
        if not self._in_body:
            self._head_bytes += size_bytes
            if self._head_bytes > MAX_HEAD_BYTES:
                raise UrlUnusable(
                    f"The server of the URL sent more than {MAX_HEAD_BYTES // 2**10} kB before the recording itself."
                )
            return
        self._window_bytes += size_bytes
        self._waited_s += waited_s
        if self._waited_s < self._rate_window_s:
            return
        if self._window_bytes < MIN_BYTES_PER_S * self._waited_s:
            raise UrlUnreachable(
                f"The server of the URL sent {self._window_bytes} bytes in {self._waited_s:.0f} s, which is too slow."
            )
        self._window_bytes, self._waited_s = 0, 0.0

    def count_piece(self, size_bytes: int) -> None:
        """Count a piece of the body, as the server or the network divided it.

        Raises:
            UrlUnusable: The pieces are too small.
        """
        self._body_bytes += size_bytes
        self._pieces += 1
        if self._pieces >= JUDGED_PIECES and self._body_bytes < MIN_PIECE_BYTES * self._pieces:
            raise UrlUnusable(
                f"The server of the URL sends the recording in pieces of {self._body_bytes / self._pieces:.0f} bytes "
                f"on average. They have to have at least {MIN_PIECE_BYTES}."
            )
