"""The way of each request through the log: an id for it, and one line that says how it was answered."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from diarist import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

access = logging.getLogger("diarist.access")

POLLED = frozenset({"/status", "/health/live", "/health/ready"})
"""Addresses that are asked every few seconds for as long as the service runs."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_for(offered: str | None) -> str:
    """The id that the caller gave, where it is sane (``[A-Za-z0-9._-]``, at most 64); else a new one."""
    return offered if offered and _SANE_ID.fullmatch(offered) else secrets.token_hex(8)


def current_request_id() -> str:
    """The id of the request that this thread answers; empty outside of one."""
    return logs.request_id.get() or ""


def log_access(method: str, path: str, status: str, started: float, request_id: str) -> None:
    """One line for an answered request; ``started`` is of ``time.monotonic``. At DEBUG for a poll that went well."""
    took_ms = (time.monotonic() - started) * 1000
    # Or the log of a night would hold nothing else, and rotation would throw out what matters.
    level = logging.DEBUG if path in POLLED and status == "200" else logging.INFO
    access.log(level, "%s %s %s %.0f ms", method, path, status, took_ms, extra={"request_id": request_id})


class Traced:
    """WSGI middleware: gives each request its id, in the log, in ``X-Request-ID``, and writes the access line."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. The application must have finished its work when it returns: nothing here streams."""
        started = time.monotonic()
        request_id = request_id_for(environ.get("HTTP_X_REQUEST_ID"))
        answered = ["-"]

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answered[0] = status.partition(" ")[0]
            extra = [("X-Request-ID", request_id), ("X-Content-Type-Options", "nosniff")]
            return start_response(status, [*headers, *extra], exc_info)

        token = logs.request_id.set(request_id)
        access.debug(
            "From %s: %s, %s bytes, by %s",
            *(
                environ.get(name) or "-"
                for name in ("REMOTE_ADDR", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_USER_AGENT")
            ),
        )
        try:
            return self.app(environ, start)
        finally:
            path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
            log_access(environ.get("REQUEST_METHOD", "-"), path, answered[0], started, request_id)
            logs.request_id.reset(token)
