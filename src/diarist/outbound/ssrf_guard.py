"""Protection against server-side request forgery (SSRF): connections never lead to private networks.

All addresses of a host name are checked, and the connection is made to one of the checked addresses. The name is
resolved only once, so that a second response of its name server cannot lead elsewhere (DNS rebinding). The resolved
address is checked, not the text of the URL, so no spelling of an address escapes the check. This is a network backend
for httpcore, below TLS and HTTP: the certificate is still checked against the name, the header ``Host`` contains the
name, and every redirect is checked in the same way.
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
from diarist.outbound.receive_limits import ReceiveLimits
from diarist.outbound.socket_stream import DeadlineStream
from diarist.outbound.urls import NOT_PUBLIC_MESSAGE

logger = logging.getLogger(__name__)

Resolve: TypeAlias = Callable[[str, int], tuple[str, ...]]
"""Called with a host and a port; returns the addresses in the order in which to try them. Raises ``OSError``."""


def resolve(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses that the resolver of the system has for ``host``."""
    # Passed as bytes, because the host is encoded for DNS already and must not go through Python's idna codec again.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedBackend(httpcore.NetworkBackend):
    """A network backend that connects only to public addresses and to those in ``networks``, within a deadline.

    Args:
        deadline: The deadline of the exchange.
        networks: Private networks that are allowed.
        resolve: Resolves host names.
        limits: The limits on what the server sends; None means new ones.
    """

    def __init__(
        self,
        deadline: Deadline,
        networks: Networks = (),
        resolve: Resolve = resolve,
        limits: ReceiveLimits | None = None,
    ) -> None:
        self._deadline = deadline
        self._limits = limits or ReceiveLimits()
        self._networks = networks
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline applies instead
        local_address: str | None = None,  # noqa: ARG002 - unused
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect to the first address of ``host`` that accepts a connection.

        Raises:
            UrlRefused: an address of the host is neither public nor allowed, or belongs to this machine.
            httpcore.ConnectError: the host has no address, or none of them accepts a connection.
            httpcore.ConnectTimeout: connecting took too long.
        """
        addresses = self._resolve_host(host, port)
        if forbidden := [address for address in addresses if not self._is_allowed(address)]:
            # Only the log contains the addresses: callers must not learn what names resolve to inside the network.
            logger.warning("The connection to %s was refused, because it resolves to %s", host, ", ".join(forbidden))
            raise UrlRefused(f"The host {host!r} {NOT_PUBLIC_MESSAGE}")
        last_error: OSError = OSError("the host has no address")
        for address in addresses:
            try:
                connected = _connect(str(unmapped(address)), port, self._deadline)
                return DeadlineStream(connected, self._deadline, self._limits)
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
        raise UrlRefused(f"{path!r} is on this machine, and this service only connects to other machines.")

    def _is_allowed(self, text: str) -> bool:
        address = unmapped(text)
        return is_within(address, self._networks) or (is_public(address) and not is_local_address(str(address)))

    def _resolve_host(self, host: str, port: int) -> tuple[str, ...]:
        """Resolve a name in a thread, because the system resolver has no timeout; the thread ends when it gives up."""
        result: SimpleQueue[tuple[str, ...] | Exception] = SimpleQueue()

        def run_resolver() -> None:
            try:
                result.put(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 - it is raised again in the waiting thread
                result.put(error)

        def wait(poll_s: float) -> tuple[str, ...] | Exception:
            try:
                return result.get(timeout=poll_s)
            except Empty:
                raise TimeoutError("its name was not resolved in time") from None

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
    """Return whether ``address`` belongs to this machine: a connection to it would bypass the firewall."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((address, 9))  # a datagram socket sends nothing here, it only looks up the route
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
                    raise TimeoutError("it does not accept the connection")

            deadline.wait_for(wait)
        failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
