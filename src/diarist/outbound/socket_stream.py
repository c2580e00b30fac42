"""A network stream for httpcore over one socket, which observes a ``Deadline`` and ``ReceiveLimits``."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import httpcore

from diarist.outbound.deadline import Deadline
from diarist.outbound.receive_limits import ReceiveLimits

T = TypeVar("T")


class DeadlineStream(httpcore.NetworkStream):
    """A network stream with a deadline and limits for the whole exchange.

    The timeouts of httpcore are those of single steps, so a peer that sends a byte at a time would never exceed them.
    """

    def __init__(self, connected: socket.socket, deadline: Deadline, limits: ReceiveLimits) -> None:
        self._socket = connected
        self._deadline = deadline
        self._limits = limits

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        started = time.monotonic()
        with _translate_errors(httpcore.ReadTimeout, httpcore.ReadError):
            data = self._wait_for(lambda: self._socket.recv(max_bytes))
        self._limits.count_received(len(data), time.monotonic() - started)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        with _translate_errors(httpcore.WriteTimeout, httpcore.WriteError):
            remaining = memoryview(buffer)
            while remaining:
                remaining = remaining[self._wait_for(partial(self._socket.send, remaining)) :]

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            with _translate_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
                wrapped = ssl_context.wrap_socket(
                    self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                secured = DeadlineStream(wrapped, self._deadline, self._limits)
                self._socket = wrapped
                self._wait_for(wrapped.do_handshake)
        except BaseException:
            self.close()
            raise
        return secured

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> object:
        """Return ``socket`` or ``ssl_object``; httpcore asks for nothing else if a connection is used only once."""
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        return self._socket if info == "socket" else None

    def _wait_for(self, operation: Callable[[], T]) -> T:
        def attempt(poll_s: float) -> T:
            self._socket.settimeout(poll_s)
            return operation()

        return self._deadline.wait_for(attempt)


@contextmanager
def _translate_errors(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(error) from error
    except OSError as error:
        raise failure(error) from error
