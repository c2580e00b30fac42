"""Metrics and traces of the requests that an application answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from apiflask import APIFlask
from prometheus_client import CollectorRegistry, Counter, Histogram
from werkzeug.exceptions import HTTPException

from diarist.observability import tracing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

OTHER = "other"
"""The label for methods that HTTP does not define, and for paths that match no route."""

# The highest values are for POST /diarize, which may take this long for hours of speech.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0)

SERVER_ERROR = 500


class Instrumentation:
    """WSGI middleware that counts, times and traces requests. It wraps the current ``wsgi_app`` of ``app``.

    A request is timed until its response begins, because a stream of events may then continue for hours. Requests that
    only read are traced only if the caller traces them; otherwise polling would produce most of the traces.
    """

    def __init__(self, app: APIFlask, registry: CollectorRegistry) -> None:
        self._wrapped_app = app.wsgi_app
        self._url_map = app.url_map
        self._requests = Counter(
            "diarist_http_requests", "Requests that were answered.", ("method", "path", "status"), registry=registry
        )
        self._durations = Histogram(
            "diarist_http_request_seconds", "Time until the response began, in seconds.", ("method", "path"),
            buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started_at = time.perf_counter()
        method = environ.get("REQUEST_METHOD", "")
        method = method if method in KNOWN_METHODS else OTHER
        path = self._route(environ, method)
        status = 0

        def record_status(status_line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = int(status_line.partition(" ")[0])
            return start_response(status_line, headers, exc_info)

        with _request_span(method, path, environ.get("HTTP_TRACEPARENT")) as span:
            try:
                return self._wrapped_app(environ, record_status)
            finally:
                status = status or SERVER_ERROR
                if span is not None:
                    span.set_attributes(http_status=status)
                    if status >= SERVER_ERROR:
                        span.fail(str(status))
                self._requests.labels(method, path, str(status)).inc()
                self._durations.labels(method, path).observe(time.perf_counter() - started_at)

    def _route(self, environ: WSGIEnvironment, method: str) -> str:
        """Return the path of the route, in which ``<job_id>`` replaces an ID, or ``OTHER`` if no route matches."""
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        try:
            rule, _ = self._url_map.bind("localhost").match(path or "/", method=method, return_rule=True)
        except HTTPException:  # an unknown path or a method that it does not support
            return OTHER
        return rule.rule


def _request_span(method: str, path: str, parent: str | None) -> AbstractContextManager[tracing.Span | None]:
    if method in READ_METHODS and tracing.trace_id_of(parent) is None:
        return nullcontext()
    return tracing.span(f"{method} {path}", parent=parent, kind="server", http_method=method, http_route=path)
