"""Request IDs, and the access log with one line for each request."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from diarist.api.security_headers import SECURITY_HEADERS
from diarist.observability import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

access_logger = logging.getLogger("diarist.access")

POLLED_PATHS = re.compile(r"/status|/health/(live|ready)|/metrics|/v1/jobs/[^/]+")
"""The paths that clients poll every few seconds, as long as the service or a job is running."""

STREAM_MEDIA_TYPE = "text/event-stream"
"""The media type of responses that are produced while they are sent."""

_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_for(sent_id: str | None) -> str:
    """Return the ID that the client sent if it is valid (``[A-Za-z0-9._-]``, at most 64), otherwise a new one."""
    return sent_id if sent_id and _VALID_ID.fullmatch(sent_id) else secrets.token_hex(8)


def current_request_id() -> str:
    """Return the ID of the request that this thread is handling, or an empty string if there is none."""
    return logs.request_id.get() or ""


def log_access(method: str, path: str, status: str, started_at: float, request_id: str) -> None:
    """Log a request that has been answered, at level DEBUG if it is a successful poll, otherwise at INFO.

    ``started_at`` is a value of ``time.monotonic``.
    """
    took_ms = (time.monotonic() - started_at) * 1000
    # At INFO, polls would fill the log, and rotation would remove the lines that matter.
    is_poll = method in ("GET", "HEAD") and status in ("200", "304") and POLLED_PATHS.fullmatch(path)
    level = logging.DEBUG if is_poll else logging.INFO
    access_logger.log(level, "%s %s %s %.0f ms", method, path, status, took_ms, extra={"request_id": request_id})


class RequestLog:
    """WSGI middleware: the request ID (in the log and in ``X-Request-ID``), the security headers and the access log."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request. It is logged when this returns or, if the response is a stream, when that is closed."""
        request = _Request(environ)
        is_stream = False

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal is_stream
            request.status = status.partition(" ")[0]
            given = {name.lower(): value for name, value in headers}
            is_stream = given.get("content-type", "").startswith(STREAM_MEDIA_TYPE)
            extra = [(name, value) for name, value in SECURITY_HEADERS.items() if name.lower() not in given]
            return start_response(status, [*headers, ("X-Request-ID", request.id), *extra], exc_info)

        access_logger.debug(
            "Request from %s: %s, %s bytes, user agent %s",
            *(
                environ.get(name) or "-"
                for name in ("REMOTE_ADDR", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_USER_AGENT")
            ),
        )
        try:
            response = self.app(environ, start)
        except BaseException:
            request.end()
            raise
        if is_stream:
            return _StreamedResponse(response, request)
        request.end()
        return response


class _Request:
    """A request, from its arrival until it is logged."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.id = request_id_for(environ.get("HTTP_X_REQUEST_ID"))
        self.status = "-"
        self._environ = environ
        self._started_at = time.monotonic()
        self._token = logs.request_id.set(self.id)

    def end(self) -> None:
        path = self._environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        log_access(self._environ.get("REQUEST_METHOD", "-"), path, self.status, self._started_at, self.id)
        logs.request_id.reset(self._token)


class _StreamedResponse:
    """The response of a stream. The request is logged when it is closed."""

    def __init__(self, response: Iterable[bytes], request: _Request) -> None:
        self._response = response
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        try:
            if close := getattr(self._response, "close", None):
                close()
        finally:
            self._request.end()
