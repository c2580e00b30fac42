"""The HTTP server: waitress, with refusals in JSON that come before the body does, and with slow senders shown out.

Waitress reads on one thread and answers on others; a body is spooled to ``tempfile.tempdir`` before the application
sees the request, so no number of slow uploads holds a thread.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error

from diarist import errors
from diarist.api import access, problems
from diarist.api.fair_semaphore import FairSemaphore
from diarist.api.request_log import log_access, request_id_for
from diarist.api.runtime import SPARE_THREADS, Runtime
from diarist.api.upload import FORM_BYTES, too_large
from diarist.errors import ConfigurationError, StoreUnavailable, Unauthorized
from diarist.scratch import disk_full
from diarist.settings import Settings

logger = logging.getLogger(__name__)

GRACE_S = 30.0
"""A request may take this long, and longer by one second for each ``SLOWEST_BYTES_PER_S`` of its body that came."""

SLOWEST_BYTES_PER_S = 1_000

LINGER_S = 2.0
"""How long a refused sender is still listened to, so that it reads the refusal rather than a broken connection."""

IDLE_S = 120
"""A connection without a request is closed after this long."""

CONNECTIONS = 500

ROOM_STEP_BYTES = 16 * 2**20
"""How much of a body comes between two looks at the free space of the disk."""

CHUNKED_PIECE_BYTES = 16 * 2**10
"""How much of a chunked body is read at a time; the most for the line before a chunk and for what follows the last."""

MAX_WASTE = 3
"""How many times its own length a chunked body may take on the wire: chunks of 16 bytes take 1.4 times."""

SHOWN_CHARS = 80
"""Of what is wrong with a head, which may quote it."""

DOOR_PATIENCE_S = 0.1
"""How long the thread that reads all requests waits to hear which API keys there are."""

FLUSH_S = 3.0
"""How long a stopping server goes on to send the answers that it has."""


class _RefusalError(Error):  # type: ignore[misc]
    """A reason to refuse a request that waitress itself does not know."""

    def __init__(self, status: HTTPStatus, details: str = "") -> None:
        super().__init__(details or status.phrase)
        self.code = int(status)
        self.reason = status.phrase


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """One request as it arrives."""

    error: Error | None

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.started = time.monotonic()
        self.room_checked_bytes = -ROOM_STEP_BYTES
        self.door_passed = False

    def received(self, data: bytes) -> int:
        try:
            chunked = isinstance(self.body_rcv, ChunkedReceiver)
            # Waitress copies what is left of a piece at each chunk in it.
            consumed: int = super().received(data[:CHUNKED_PIECE_BYTES] if chunked else data)
            self._check_access()
            self._check_chunks()
            self._check_room()
        except ValueError as error:
            self.headers.clear()
            self.parse_header(b"GET / HTTP/1.0\r\n")
            self.refuse(HTTPStatus.BAD_REQUEST, f"The head of the request cannot be read: {str(error)[:SHOWN_CHARS]}")
            return len(data)
        except OSError as error:
            logger.error("The body of a request cannot be stored in TEMP_AUDIO_DIR: %s", error)  # noqa: TRY400
            full = disk_full(error)
            self.refuse(HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return len(data)
        if self.error is not None:
            # Or waitress would ask the sender to go on, and read to the end a body that it has refused already.
            self.expect_continue = False
            return len(data)
        return consumed

    def refuse(self, status: HTTPStatus, details: str = "") -> None:
        """End the request here; ``details`` are for the log."""
        self.expect_continue = False
        self.error = _RefusalError(status, details)
        self.completed = True

    def _check_access(self) -> None:
        """Refuse a stranger's body before any of it is read. The application asks again, of every request."""
        if self.error is not None or self.body_rcv is None or self.door_passed:
            return
        self.door_passed = True
        own = (self.headers.get(name) for name in ("AUTHORIZATION", "X_API_KEY"))
        try:
            self.adj.door.admit(access.Headers(self.command, self.path, *own), DOOR_PATIENCE_S, with_body=True)
        except Unauthorized as error:
            self.refuse(HTTPStatus.UNAUTHORIZED, str(error))
        except StoreUnavailable:
            logger.debug("The API keys are not known yet; the application decides")

    def _check_chunks(self) -> None:
        """Refuse a chunked body that is mostly no body: it costs the thread that reads for everyone its time."""
        body = self.body_rcv
        if self.error is not None or not isinstance(body, ChunkedReceiver):
            return
        beside_bytes = max(len(body.control_line), len(body.trailer))
        wasted = self.body_bytes_received > CHUNKED_PIECE_BYTES + MAX_WASTE * len(body)
        if beside_bytes > CHUNKED_PIECE_BYTES or wasted:
            self.refuse(HTTPStatus.BAD_REQUEST, "The chunks of the body are too small, or their sizes have no end")

    def _check_room(self) -> None:
        """Refuse a body that the disk has no room for: once it is declared, and again as others grow beside it."""
        if self.error is not None or self.body_rcv is None:
            return
        received_bytes = self.body_bytes_received
        if received_bytes - self.room_checked_bytes < ROOM_STEP_BYTES:
            return
        self.room_checked_bytes = received_bytes
        ahead_bytes = max(self.content_length - received_bytes, 0)
        free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
        if free_bytes < self.adj.min_free_bytes + ahead_bytes:
            self.refuse(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"TEMP_AUDIO_DIR has {free_bytes // 2**20} MB free, {ahead_bytes / 2**20:.1f} MB would still come, and "
                f"{self.adj.min_free_bytes // 2**20} MB must stay free (MIN_FREE_MB)",
            )

    @property
    def too_slow(self) -> bool:
        took_s: float = time.monotonic() - self.started
        received_bytes: int = self.body_bytes_received
        return took_s > GRACE_S + received_bytes / SLOWEST_BYTES_PER_S


class _Refuse(ErrorTask):  # type: ignore[misc]
    """Answers what never reached the application, in the shape of all other errors."""

    def execute(self) -> None:
        started = time.monotonic()
        error = self.request.error
        request_id = request_id_for(self.request.headers.get("X_REQUEST_ID"))
        code, message = _words(error, self.channel.server.upload_limit_bytes, request_id)
        method, path = getattr(self.request, "command", "-"), getattr(self.request, "path", "-")
        body = problems.body(error.code, message, code, path=path, request_id=request_id)
        self.status = f"{error.code} {error.reason}"
        own = {"X-Request-ID": request_id, "X-Content-Type-Options": "nosniff"}
        self.response_headers.extend((problems.headers(error.code) | own).items())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
        level = logging.WARNING if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        logger.log(level, "Refused with %d %s: %s", error.code, code, error.body, extra={"request_id": request_id})
        log_access(method, path, str(error.code), started, request_id)


def _words(error: Error, limit_bytes: int, request_id: str) -> tuple[str, str]:
    """The machine word and the words for a person."""
    if error.code == HTTPStatus.UNAUTHORIZED:
        return errors.Unauthorized.code, error.body
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return errors.UploadTooLarge.code, str(too_large(limit_bytes))
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.ServiceError.code, f"{problems.INTERNAL} {request_id}."
    code, message = problems.MESSAGES.get(error.code, ("http_error", f"{problems.title(error.code)}."))
    return code, f"{message} ({error.body}.)" if error.code == HTTPStatus.BAD_REQUEST else message


class _Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    parser_class = _Parser
    error_task_class = _Refuse
    request: _Parser | None
    will_close: bool
    refused = False
    listens_until: float | None = None

    def readable(self) -> bool:
        if self.listens_until is not None:
            self.will_close = self.will_close or time.monotonic() > self.listens_until
            return not self.will_close
        self._show_out_slow_sender()
        return bool(super().readable())

    def _show_out_slow_sender(self) -> None:
        with self.requests_lock:
            request = self.request
            if request is None or self.requests or not request.too_slow:
                return
            if not hasattr(request, "command"):
                request.parse_header(b"GET / HTTP/1.0\r\n")
            request.refuse(HTTPStatus.REQUEST_TIMEOUT)
            self.request = None
            self.requests.append(request)
        self.server.add_task(self)

    def received(self, data: bytes) -> bool:
        return self.listens_until is None and bool(super().received(data))

    def service(self) -> None:
        request = self.requests[0]
        self.refused = request.error is not None
        if self.refused or request.command in ("GET", "HEAD") or not request.path.startswith("/v1/"):
            super().service()
            return
        lane: FairSemaphore[_Channel] = self.server.lane
        if not lane.enter(self):
            return
        try:
            super().service()
        finally:
            if following := lane.leave():
                self.server.add_task(following)

    def handle_write(self) -> None:
        if self.refused and self.close_when_flushed and self.listens_until is None:
            self._flush_exception(self._flush_some)
            if self.total_outbufs_len == 0 and self.connected and not self.will_close:
                self._listen_on()
                return
        super().handle_write()

    def _listen_on(self) -> None:
        """Say that nothing more comes, but take in a little of what is still sent.

        To close at once would reset the connection, and most senders would report that instead of the refusal.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.close_when_flushed = False
        self.listens_until = time.monotonic() + LINGER_S


class Server:
    """Listens from the moment it is made; answers while ``run`` runs.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(self, app: APIFlask, settings: Settings) -> None:
        self._runtime: Runtime = app.extensions["diarist"]
        self._map: dict[int, Any] = {}
        self._sockets = _bind(settings.flask_host, settings.flask_port)
        self._stopped = threading.Event()
        self._threads = ThreadedTaskDispatcher()
        self._threads.set_thread_count(settings.http_threads)
        create_server(
            app,
            map=self._map,
            _dispatcher=self._threads,
            sockets=self._sockets,
            threads=settings.http_threads,
            ident=None,
            # Waitress refuses what reaches the number.
            max_request_body_size=settings.upload_limit_bytes + FORM_BYTES + 1,
            max_request_header_size=64 * 2**10,
            recv_bytes=256 * 2**10,
            channel_timeout=IDLE_S,
            cleanup_interval=10,
            connection_limit=CONNECTIONS,
            # Keeps reading while a request is worked on: this is how a caller who hangs up is noticed.
            channel_request_lookahead=1,
            asyncore_use_poll=True,
            log_socket_errors=False,
        )
        # What is written may wait for a disk; while it does, there must be threads to read with.
        waiting = settings.max_waiting + settings.max_listeners + SPARE_THREADS
        lane = FairSemaphore[_Channel](max(settings.http_threads - waiting, 1))
        self._listeners = [each for each in self._map.values() if isinstance(each, BaseWSGIServer)]
        for listener in self._listeners:
            listener.channel_class = _Channel
            listener.upload_limit_bytes = settings.upload_limit_bytes
            listener.lane = lane
            listener.adj.socket_options = _socket_options()
            listener.adj.door = app.extensions[access.EXTENSION]
            listener.adj.min_free_bytes = settings.min_free_mb * 2**20

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens."""
        return tuple(_url(each.getsockname()) for each in self._sockets)

    def run(self) -> None:
        """Answer requests until ``stop`` is called; then tell waiting callers 503 and send what is ready."""
        while not self._stopped.is_set():
            wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)
        self._runtime.stopping.set()
        for listener in self._listeners:
            listener.accepting = False
            wasyncore.dispatcher.close(listener)
        deadline = time.monotonic() + FLUSH_S
        while self._busy() and time.monotonic() < deadline:
            wasyncore.loop(timeout=0.1, use_poll=True, map=self._map, count=1)

    def stop(self) -> None:
        """Make ``run`` return soon. May be called from any thread and from a signal handler."""
        self._stopped.set()
        for listener in self._listeners:
            listener.pull_trigger()

    def close(self) -> None:
        """Close every connection and end the threads."""
        self._threads.shutdown(cancel_pending=True, timeout=1)
        wasyncore.close_all(self._map, ignore_all=True)
        for each in self._sockets:
            each.close()

    def _busy(self) -> bool:
        """An answer is being made or sent."""
        return any(
            channel.requests or channel.total_outbufs_len
            for channel in list(self._map.values())
            if isinstance(channel, _Channel)
        )


def _bind(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address that ``host`` stands for; they share the port."""
    bound: list[socket.socket] = []
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(
            f"FLASK_HOST {host!r} is no address of this machine ({error.strerror}). 127.0.0.1 is this machine alone, "
            "0.0.0.0 every network that it is in."
        ) from error
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], bound[0].getsockname()[1] if bound else port, *address[2:]))
        except OSError as error:
            listener.close()
            failure = error
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # A name may stand for an address of a family that is switched off here: one of them is enough.
                continue
            break
        bound.append(listener)
    if failure is not None and (not bound or failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        for listener in bound:
            listener.close()
        raise ConfigurationError(_why_not_bound(host, port, failure)) from failure
    return bound


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop what listens there, or set FLASK_PORT to a free port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is not for this user. Set FLASK_PORT to a port from 1024 on."
    return f"Port {port} on {host} cannot be listened on ({error.strerror}). Check FLASK_HOST and FLASK_PORT."


def _url(address: tuple[Any, ...]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _socket_options() -> list[tuple[int, int, int]]:
    """Of each connection: send at once, and notice within minutes that a waiting caller's machine has gone."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options
