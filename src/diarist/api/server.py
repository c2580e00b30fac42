"""The HTTP server: waitress with limits on slow clients, on connections and on the free space of the disk."""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import Any

from apiflask import APIFlask
from waitress import wasyncore
from waitress.adjustments import Adjustments

from diarist.api import access
from diarist.api.connections import ConnectionLimits, Connections, Listener
from diarist.api.event_loop import run_round
from diarist.api.fair_semaphore import FairSemaphore
from diarist.api.http_channel import Channel
from diarist.api.request_queue import RequestQueue
from diarist.api.runtime import SPARE_THREADS, Runtime
from diarist.api.upload import FORM_BYTES
from diarist.errors import ConfigurationError
from diarist.settings import Settings
from diarist.system.sockets import claim_address

SEND_BUFFER_BYTES = 64 * 2**10
"""The size of a socket's send buffer. By default the kernel keeps megabytes for each client that does not read."""

OUTPUT_BUFFER_BYTES = 64 * 2**10
"""How much of a response is kept in memory, and of a stream is produced in advance, while the client does not read."""

INPUT_BUFFER_BYTES = 64 * 2**10
"""How much of a request's body is kept in memory; a larger one is spooled."""

FLUSH_TIMEOUT_S = 3.0
"""How long a stopping server continues to send responses that are ready."""


class Server:
    """Listens as soon as it is created, and answers while ``run`` runs.

    Raises:
        ConfigurationError: the server cannot listen on the address.
    """

    def __init__(self, app: APIFlask, settings: Settings) -> None:
        self._runtime: Runtime = app.extensions["diarist"]
        self._map: dict[int, Any] = {}
        self._sockets = _bind(settings.flask_host, settings.flask_port)
        self._stopped = threading.Event()
        self._threads = RequestQueue()
        self._threads.set_thread_count(settings.http_threads)
        adjustments = Adjustments(
            sockets=self._sockets,
            threads=settings.http_threads,
            ident=None,
            # Waitress refuses a body of this size, and accepts a smaller one.
            max_request_body_size=settings.upload_limit_bytes + FORM_BYTES + 1,
            max_request_header_size=64 * 2**10,
            recv_bytes=256 * 2**10,
            inbuf_overflow=INPUT_BUFFER_BYTES,
            outbuf_overflow=OUTPUT_BUFFER_BYTES,
            outbuf_high_watermark=OUTPUT_BUFFER_BYTES,
            # Continue to read while a request is handled, to notice that the client has closed the connection.
            channel_request_lookahead=1,
            # X-Forwarded-Host is checked (``origin_check``), and no other of these headers is used.
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
        )
        adjustments.socket_options = _socket_options()
        adjustments.authenticator = app.extensions[access.EXTENSION]
        adjustments.min_free_bytes = settings.min_free_mb * 2**20
        # Requests that write may wait for a disk; meanwhile some threads must remain for requests that read.
        waiting = settings.max_waiting + settings.max_listeners + SPARE_THREADS
        write_slots = FairSemaphore[Channel](max(settings.http_threads - waiting, 1))
        self._listeners = [
            Listener(
                app, self._map, _sock=each, dispatcher=self._threads, adj=adjustments, bind_socket=False,
                sockinfo=(each.family, each.type, each.proto, each.getsockname()),
            )
            for each in self._sockets
        ]  # fmt: skip
        for listener in self._listeners:
            listener.upload_limit_bytes = settings.upload_limit_bytes
            listener.write_slots = write_slots
        self._connections = Connections(ConnectionLimits.of(settings), self._listeners)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of the addresses on which the server listens."""
        return tuple(_url(each.getsockname()) for each in self._sockets)

    def run(self) -> None:
        """Answer requests until ``stop`` is called; then answer waiting callers with 503 and send what is ready."""
        while not self._stopped.is_set():
            run_round(self._map, self._connections.poll_timeout_s)
            self._connections.close_expired()
        self._runtime.stopping.set()
        for listener in self._listeners:
            listener.accepting = False
            wasyncore.dispatcher.close(listener)
        deadline = time.monotonic() + FLUSH_TIMEOUT_S
        while self._busy() and time.monotonic() < deadline:
            run_round(self._map, 0.1)

    def stop(self) -> None:
        """Make ``run`` return soon. This may be called from any thread and from a signal handler."""
        self._stopped.set()
        for listener in self._listeners:
            listener.pull_trigger()

    def close(self) -> None:
        """Close all connections and end the threads."""
        self._threads.shutdown(cancel_pending=True, timeout=1)
        wasyncore.close_all(self._map, ignore_all=True)
        for each in self._sockets:
            each.close()

    def _busy(self) -> bool:
        """Return whether any response is being prepared or sent."""
        return any(channel.requests or channel.total_outbufs_len for channel in self._connections.channels())


def _bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket for each address that ``host`` resolves to, all with the same port."""
    bound: list[socket.socket] = []
    failure: OSError | None = None
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(
            f"FLASK_HOST {host!r} is not an address of this machine ({error.strerror}). 127.0.0.1 means this machine "
            "only, 0.0.0.0 all of its networks."
        ) from error
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        listener = socket.socket(family, kind, protocol)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            claim_address(listener)
            listener.bind((address[0], bound[0].getsockname()[1] if bound else port, *address[2:]))
        except OSError as error:
            listener.close()
            failure = error
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # A name may resolve to an address of a family that is disabled on this machine; one address is enough.
                continue
            break
        bound.append(listener)
    if failure is not None and (not bound or failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        for listener in bound:
            listener.close()
        raise ConfigurationError(_bind_error_message(host, port, failure)) from failure
    return bound


def _bind_error_message(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop the program that uses it, or set FLASK_PORT to a free port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} cannot be used by this user. Set FLASK_PORT to another port, of 1024 or more."
    return f"Port {port} on {host} cannot be listened on ({error.strerror}). Check FLASK_HOST and FLASK_PORT."


def _url(address: tuple[Any, ...]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _socket_options() -> list[tuple[int, int, int]]:
    """Return the options of a connection: no delay, a small buffer, keepalive that detects a lost client in minutes."""
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    ]
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options
