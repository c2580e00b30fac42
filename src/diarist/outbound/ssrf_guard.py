"""Connections that lead to no private network: every address of a name is checked, and one of those is connected to.

The name is resolved once, here, so that a second answer of its name server cannot lead anywhere else (DNS rebinding),
and it is the answer that counts, so that no spelling of an address gets past. This is httpcore's network backend, below
TLS and HTTP: the certificate is checked against the name, the header ``Host`` carries it, and each redirect that is
followed comes through here again.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias

import httpcore

from diarist.errors import UrlRefused
from diarist.outbound.deadline import Deadline
from diarist.outbound.networks import Networks, is_public, is_within, unmapped
from diarist.outbound.socket_stream import DeadlineStream
from diarist.outbound.urls import NOT_PUBLIC_MESSAGE

logger = logging.getLogger(__name__)

Resolve: TypeAlias = Callable[[str, int], tuple[str, ...]]
"""Called with a host and a port: its addresses, in the order in which they are to be tried. Raises ``OSError``."""


def resolve(host: str, port: int) -> tuple[str, ...]:
    """The addresses that the system's resolver has for ``host``."""
    # bytes: the host is in its form for DNS already, and must not be taken through Python's idna codec once more
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses and to those within ``networks``; at no time waits longer than ``patience`` does."""

    def __init__(self, deadline: Deadline, networks: Networks = (), resolve: Resolve = resolve) -> None:
        self._deadline = deadline
        self._networks = networks
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - patience knows
        local_address: str | None = None,  # noqa: ARG002 - nobody asks for one
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """A connection to the first address of ``host`` that takes one.

        Raises:
            UrlRefused: one of its addresses is neither public nor allowed, or is this machine's own.
            httpcore.ConnectError: it has no address, or none that takes the connection.
            httpcore.ConnectTimeout: that took too long.
        """
        addresses = self._resolve_host(host, port)
        if forbidden := [address for address in addresses if not self._is_allowed(address)]:
            # to the log alone: whoever asks from outside has no business with what names mean inside
            logger.warning("Refused to connect to %s: it leads to %s", host, ", ".join(forbidden))
            raise UrlRefused(f"The host {host!r} {NOT_PUBLIC_MESSAGE}")
        last_error: OSError = OSError("it has no address")
        for address in addresses:
            try:
                return DeadlineStream(_connect(str(unmapped(address)), port, self._deadline), self._deadline)
            except OSError as error:
                last_error = error
        if isinstance(last_error, TimeoutError):
            raise httpcore.ConnectTimeout(last_error) from last_error
        raise httpcore.ConnectError(last_error) from last_error

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        raise UrlRefused(f"{path!r} is on this machine, and this service connects to other machines only.")

    def _is_allowed(self, text: str) -> bool:
        address = unmapped(text)
        return is_within(address, self._networks) or (is_public(address) and not is_local_address(str(address)))

    def _resolve_host(self, host: str, port: int) -> tuple[str, ...]:
        """In a thread, because the system's resolver can be neither hurried nor stopped; it ends when that gives up."""
        result: SimpleQueue[tuple[str, ...] | Exception] = SimpleQueue()

        def run_resolver() -> None:
            try:
                result.put(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                result.put(error)

        def wait(poll_s: float) -> tuple[str, ...] | Exception:
            try:
                return result.get(timeout=poll_s)
            except Empty:
                raise TimeoutError("its name is not resolved") from None

        Thread(target=run_resolver, name="resolver", daemon=True).start()
        try:
            found = self._deadline.wait_for(wait)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(error) from error
        if isinstance(found, OSError):
            raise httpcore.ConnectError(f"its name cannot be resolved ({found.strerror or found})") from found
        if isinstance(found, Exception):
            raise found
        return found


def is_local_address(address: str) -> bool:
    """Whether a connection to ``address`` would stay on this machine, whose firewall it would then be behind."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((address, 9))  # of a datagram socket: sends nothing, only asks for the way
        return str(probe.getsockname()[0]) == address
    return False


def _connect(address: str, port: int, deadline: Deadline) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        _open(opened, address, port, deadline)
    except BaseException:
        opened.close()
        raise
    return opened


def _open(opened: socket.socket, address: str, port: int, deadline: Deadline) -> None:
    opened.setblocking(False)
    failed = opened.connect_ex((address, port))
    if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        with selectors.DefaultSelector() as selector:
            selector.register(opened, selectors.EVENT_WRITE)

            def wait(poll_s: float) -> None:
                if not selector.select(poll_s):
                    raise TimeoutError("it does not take the connection")

            deadline.wait_for(wait)
        failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
