"""One HTTP connection: a waitress channel that refuses bad requests in JSON before it reads their bodies.

Waitress reads all connections on one thread and handles requests on others. A body is spooled to ``tempfile.tempdir``
before the application sees the request, so slow uploads occupy no thread. A channel parses a request only when the
response before it has been sent, so clients that do not read their responses occupy no thread either.
"""

from __future__ import annotations

import io
import logging
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from waitress.utilities import Error

from diarist import errors
from diarist.api import problems
from diarist.api.access import SAFE_METHODS
from diarist.api.fair_semaphore import FairSemaphore
from diarist.api.request_log import log_access, request_id_for
from diarist.api.request_parser import MIN_BYTES_PER_S, RequestParser
from diarist.api.request_queue import URGENT_PATHS
from diarist.api.security_headers import SECURITY_HEADERS
from diarist.api.upload import too_large
from diarist.errors import CrossOriginRequest, HostNotAllowed, Unauthorized
from diarist.system.sockets import unsent_bytes
from diarist.types import Seconds

logger = logging.getLogger(__name__)

HEAD_READ_BYTES = 16 * 2**10
"""How much is read at a time while no body arrives, and the maximum amount of pipelined requests that is kept."""

CHUNKED_RECV_BYTES = 64 * 2**10
"""How much of a chunked body is received at a time; the requests that follow it may be in it."""

SPOOL_MARGIN_BYTES = 2**20
"""A response is spooled to a file only if this much more is free on the disk, since others write to it too."""

LINGER_S = 2.0
"""How long a refused connection is still read from, so that the client reads the response, not a connection reset."""

_NOT_ADMITTED = {problems.status_of(kind): kind.code for kind in (Unauthorized, HostNotAllowed, CrossOriginRequest)}
"""The statuses and the codes of the errors of ``access``, whose messages are for the client."""


class _RefusalTask(ErrorTask):  # type: ignore[misc]
    """Responds to a request that never reached the application, in the format of all other errors."""

    def execute(self) -> None:
        started = time.monotonic()
        error = self.request.error
        request_id = request_id_for(self.request.headers.get("X_REQUEST_ID"))
        code, message = _error_message(error, self.channel.server.upload_limit_bytes, request_id)
        method, path = getattr(self.request, "command", "-"), getattr(self.request, "path", "-")
        body = problems.body(error.code, message, code, path=path, request_id=request_id)
        self.status = f"{error.code} {error.reason}"
        extra = {"X-Request-ID": request_id} | SECURITY_HEADERS
        self.response_headers.extend((problems.headers(error.code) | extra).items())
        # Waitress would add "Connection: Keep-Alive" for HTTP/1.0, although it closes the connection.
        self.request.headers.pop("CONNECTION", None)
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
        level = logging.WARNING if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        logger.log(level, "Refused with %d %s: %s", error.code, code, error.body, extra={"request_id": request_id})
        log_access(method, path, str(error.code), started, request_id)


def _error_message(error: Error, limit_bytes: int, request_id: str) -> tuple[str, str]:
    """Return the error code and the message for an error."""
    if error.code in _NOT_ADMITTED:
        return _NOT_ADMITTED[error.code], error.body
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return errors.UploadTooLarge.code, str(too_large(limit_bytes))
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.ServiceError.code, f"{problems.INTERNAL_ERROR_MESSAGE} {request_id}."
    code, message = problems.MESSAGES.get(error.code, ("http_error", f"{problems.reason_phrase(error.code)}."))
    return code, f"{message} ({error.body}.)" if error.code == HTTPStatus.BAD_REQUEST else message


def _fits_temp_dir(size_bytes: int) -> bool:
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free > size_bytes + SPOOL_MARGIN_BYTES
    except OSError:
        return False


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    parser_class = RequestParser
    error_task_class = _RefusalTask
    request: RequestParser | None
    will_close: bool
    sent_continue: bool
    refused = False
    lingers_until: float | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.accepted_at = time.monotonic()
        self.handled_at = 0.0
        """When an event of the connection was last handled; 0 before the first one."""

        self.quiet_since = self.accepted_at
        """When the connection was accepted, or last received or sent something that counts as progress.

        A few bytes of a request do not count, or else a client could stay by sending a byte from time to time.
        """

        self._answered = self._handled = False
        self._progress_at_bytes = self._undelivered_bytes = 0
        self._unparsed = b""

    @property
    def waits(self) -> bool:
        """Whether the connection waits for its client, or has only asked to read and is not being answered yet."""
        if not self.requests or self.total_outbufs_len:
            return True
        with self.requests_lock:
            reads = all(each.error is not None or each.command in SAFE_METHODS for each in self.requests)
        return reads and not self._handled

    @property
    def transfers(self) -> bool:
        """Whether a response waits to be sent, or the body of a request is arriving."""
        request = self.request
        return bool(self.total_outbufs_len) or (request is not None and request.headers_finished)

    @property
    def urgent(self) -> bool:
        """Whether the next request is a health check."""
        requests = self.requests
        return bool(requests) and requests[0].error is None and requests[0].path in URGENT_PATHS

    def expired(
        self, now: float, header_timeout_s: Seconds, keepalive_timeout_s: Seconds, send_timeout_s: Seconds
    ) -> bool:
        """Return whether the connection must be closed: nothing was sent for too long, or no request has arrived.

        Waitress itself closes a connection only when more can be sent on it, which does not happen if the client does
        not read.
        """
        if self.total_outbufs_len:
            self._note_delivery(now)
            return now - self.quiet_since > send_timeout_s
        if self.will_close:
            return True
        if self.requests or self.request is not None or self.lingers_until is not None:
            return False
        return now - self.quiet_since > (keepalive_timeout_s if self._answered else header_timeout_s)

    def _note_delivery(self, now: Seconds) -> None:
        """Count what a slow client has received as progress. The socket takes more only when much has been received."""
        undelivered_bytes = unsent_bytes(self.socket)
        if undelivered_bytes < self._undelivered_bytes:
            self.quiet_since = now
        self._undelivered_bytes = undelivered_bytes

    def readable(self) -> bool:
        if self.lingers_until is not None:
            self.will_close = self.will_close or time.monotonic() > self.lingers_until
            return not self.will_close
        if self._unparsed and not self.requests and not self.total_outbufs_len:
            self.received(b"")
        return len(self._unparsed) < HEAD_READ_BYTES and bool(super().readable())

    def refuse_slow_request(self, header_timeout_s: Seconds) -> None:
        """Answer a request that takes too long to arrive with 408."""
        with self.requests_lock:
            request = self.request
            if request is None or self.requests:
                return
            # A first request has this time from the beginning of the connection.
            head_s = request.elapsed_s if self._answered else time.monotonic() - self.quiet_since
            if not request.too_slow and (request.headers_finished or head_s <= header_timeout_s):
                return
            if not hasattr(request, "command"):
                request.parse_header(b"GET / HTTP/1.0\r\n")
            request.refuse(HTTPStatus.REQUEST_TIMEOUT)
            self.request = None
            self.requests.append(request)
        self.server.add_task(self)

    def recv(self, buffer_size: int) -> bytes:
        request = self.request
        if self.lingers_until is not None:
            size = buffer_size
        elif request is None or request.body_rcv is None or self.requests:
            size = HEAD_READ_BYTES - len(self._unparsed)
        elif request.chunked:
            size = CHUNKED_RECV_BYTES
        else:
            size = min(max(request.content_length - request.body_bytes_received, 0) + HEAD_READ_BYTES, buffer_size)
        data: bytes = super().recv(size)
        return data

    def received(self, data: bytes) -> bool:
        """Parse one request at most. What follows it is kept until the response to it has been sent."""
        if self.lingers_until is not None:
            return False
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            self._unparsed += data
            while self._unparsed and not self.requests:
                self._parse()
        return True

    def _parse(self) -> None:
        if self.request is None:
            self.request = self.parser_class(self.adj)
            self._progress_at_bytes = 0
        request = self.request
        consumed = request.received(self._unparsed)
        self._unparsed = self._unparsed[consumed:]
        received_bytes = request.body_bytes_received
        if request.headers_finished and not request.empty and received_bytes >= self._progress_at_bytes:
            self._progress_at_bytes = received_bytes + MIN_BYTES_PER_S
            self.quiet_since = time.monotonic()
        if request.expect_continue and request.headers_finished and not self.sent_continue:
            self.send_continue()
        if request.completed:
            self.sent_continue = False
            self.request = None
            if not request.empty:
                self.requests.append(request)
                self.server.add_task(self)

    def _flush_some(self, do_close: bool = True) -> bool:
        sent = bool(super()._flush_some(do_close=do_close))
        if sent:
            self.quiet_since = time.monotonic()
        return sent

    def write_soon(self, data: Any) -> int:
        """Send what the socket takes at once, and keep the rest. Waitress would first copy all of it to a buffer."""
        length = len(data)
        if not self.total_outbufs_len:
            self.quiet_since = time.monotonic()
            with self.outbuf_lock, suppress(OSError):  # Waitress then notices the error itself.
                if self.connected and isinstance(data, bytes):
                    data = data[self.send(data, do_close=False) :]
        if isinstance(data, bytes) and len(data) >= self.adj.outbuf_overflow and not _fits_temp_dir(len(data)):
            # Waitress would spool it to a file and lose the end of the response.
            data = ReadOnlyFileBasedBuffer(io.BytesIO(data))
            data.prepare()
        super().write_soon(data)
        return length

    def service(self) -> None:
        request = self.requests[0]
        self.refused = request.error is not None
        self._answered = True
        if self.refused or request.command in SAFE_METHODS or not request.path.startswith("/v1/"):
            self._handle()
            return
        write_slots: FairSemaphore[Channel] = self.server.write_slots
        if not write_slots.acquire(self):
            return
        try:
            self._handle()
        finally:
            if next_channel := write_slots.release():
                self.server.add_task(next_channel)

    def _handle(self) -> None:
        self._handled = True
        try:
            super().service()
        finally:
            self._handled = False

    def handle_write(self) -> None:
        if self.refused and self.close_when_flushed and self.lingers_until is None:
            self._flush_exception(self._flush_some)
            if self.total_outbufs_len == 0 and self.connected and not self.will_close:
                self._linger()
                return
        super().handle_write()

    def _linger(self) -> None:
        """Shut down sending, but read a little of what the client still sends.

        Closing at once would reset the connection, and most clients would report that instead of the response.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.close_when_flushed = False
        self.lingers_until = time.monotonic() + LINGER_S
