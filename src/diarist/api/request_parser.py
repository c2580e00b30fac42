"""The parser of HTTP requests, which refuses bad requests before their bodies arrive."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.utilities import Error

from diarist.api import access, problems
from diarist.errors import CrossOriginRequest, HostNotAllowed, StoreUnavailable, Unauthorized
from diarist.scratch import disk_full, make_private_folder
from diarist.types import Seconds

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 30.0
"""The maximum time for a request to arrive, plus one second for each ``MIN_BYTES_PER_S`` of its body received."""

MIN_BYTES_PER_S = 1_000

DISK_CHECK_INTERVAL_BYTES = 16 * 2**20
"""The free space of the disk is checked each time this much of a body has arrived."""

CHUNKED_READ_BYTES = 16 * 2**10
"""How much of a chunked body is read at a time, and the maximum length of a chunk header and of the trailer."""

MAX_CHUNKED_OVERHEAD = 3
"""The maximum ratio of received bytes to body bytes of a chunked body. For chunks of 16 bytes it is 1.4."""

MAX_ERROR_CHARS = 80
"""The maximum length of a parser error in a log line or response; the error may quote the request."""

KEY_TIMEOUT_S = 0.1
"""How long the thread that reads all requests waits for the stored API keys."""


class _RefusalError(Error):  # type: ignore[misc]
    """An error for which waitress has no class of its own."""

    def __init__(self, status: HTTPStatus, details: str = "") -> None:
        super().__init__(details or status.phrase)
        self.code = int(status)
        self.reason = status.phrase


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """Parses one request as it arrives, and checks it."""

    error: Error | None

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self._started = time.monotonic()
        self.disk_checked_at_bytes = -DISK_CHECK_INTERVAL_BYTES
        self.access_checked = False

    def received(self, data: bytes) -> int:
        try:
            chunked = isinstance(self.body_rcv, ChunkedReceiver)
            # Waitress copies the rest of the data for each chunk in it.
            consumed: int = super().received(data[:CHUNKED_READ_BYTES] if chunked else data)
            self._check_access()
            self._check_chunked_overhead()
            self._check_disk_space()
        except ValueError as error:
            self.headers.clear()
            self.parse_header(b"GET / HTTP/1.0\r\n")
            self.refuse(
                HTTPStatus.BAD_REQUEST, f"The head of the request cannot be read: {str(error)[:MAX_ERROR_CHARS]}"
            )
            return len(data)
        except OSError as error:
            logger.error("The body of a request cannot be stored in TEMP_AUDIO_DIR: %s", error)  # noqa: TRY400
            full = disk_full(error)
            self.refuse(HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return len(data)
        if self.error is not None:
            # Otherwise waitress would send "100 Continue" and read the whole body of a request that has been refused.
            self.expect_continue = False
            return len(data)
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head. Raise ``ParsingError`` if proxies may disagree on where the body ends (RFC 9112, 6.1)."""
        super().parse_header(header_plus)
        encoded = self.chunked or "TRANSFER_ENCODING" in self.headers
        if encoded and ("CONTENT_LENGTH" in self.headers or self.version != "1.1"):
            raise ParsingError("Transfer-Encoding must come without Content-Length and with HTTP/1.1")

    def refuse(self, status: HTTPStatus, details: str = "") -> None:
        """End the request with this status. ``details`` go to the log."""
        self.expect_continue = False
        self.error = _RefusalError(status, details)
        self.completed = True

    def _check_access(self) -> None:
        """Refuse a request without a valid key before its body is read. The application checks every request again."""
        if self.error is not None or self.body_rcv is None or self.access_checked:
            return
        self.access_checked = True
        head = access.RequestHead.read(
            self.command, self.path, lambda name: self.headers.get(name.upper().replace("-", "_"))
        )
        try:
            self.adj.authenticator.authenticate(head, KEY_TIMEOUT_S, with_body=True)
        except (Unauthorized, HostNotAllowed, CrossOriginRequest) as error:
            self.refuse(HTTPStatus(problems.status_of(type(error))), str(error))
        except StoreUnavailable:
            logger.debug("The API keys have not been read yet; the application will check the request")

    def _check_chunked_overhead(self) -> None:
        """Refuse a chunked body that is mostly framing, which would keep the thread that reads all connections busy."""
        body = self.body_rcv
        if self.error is not None or not isinstance(body, ChunkedReceiver):
            return
        framing_bytes = max(len(body.control_line), len(body.trailer))
        excessive = self.body_bytes_received > CHUNKED_READ_BYTES + MAX_CHUNKED_OVERHEAD * len(body)
        if framing_bytes > CHUNKED_READ_BYTES or excessive:
            self.refuse(HTTPStatus.BAD_REQUEST, "The chunks of the body are too small, or their sizes have no end")

    def _check_disk_space(self) -> None:
        """Refuse a body that does not fit on the disk: when its size is declared, and again while it arrives."""
        if self.error is not None or self.body_rcv is None:
            return
        received_bytes = self.body_bytes_received
        if received_bytes - self.disk_checked_at_bytes < DISK_CHECK_INTERVAL_BYTES:
            return
        self.disk_checked_at_bytes = received_bytes
        remaining_bytes = max(self.content_length - received_bytes, 0)
        folder = Path(tempfile.gettempdir())
        make_private_folder(folder)  # somebody may have removed it
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < self.adj.min_free_bytes + remaining_bytes:
            self.refuse(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"TEMP_AUDIO_DIR has {free_bytes // 2**20} MB free, {remaining_bytes / 2**20:.1f} MB would still come, "
                f"and {self.adj.min_free_bytes // 2**20} MB must stay free (MIN_FREE_MB)",
            )

    @property
    def elapsed_s(self) -> Seconds:
        """The time since the first byte arrived."""
        return time.monotonic() - self._started

    @property
    def too_slow(self) -> bool:
        received_bytes: int = self.body_bytes_received
        return self.elapsed_s > REQUEST_TIMEOUT_S + received_bytes / MIN_BYTES_PER_S
