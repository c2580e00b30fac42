"""A trace collector on loopback, which receives OTLP over HTTP and stores the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class ReceivedSpan:
    """A span that was received."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the root span of a trace."""

    kind: str
    failed: bool
    started: float
    ended: float
    """The start and the end are in seconds since 1970."""

    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """A collector that responds with ``status``. If it is ``silent``, it responds only after it is released."""

    status: int = 200
    silent: bool = False
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    _spans_received: list[ReceivedSpan] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> list[ReceivedSpan]:
        with self._changed:
            return list(self._spans_received)

    def wait_for(self, *names: str, timeout: float = 30) -> dict[str, ReceivedSpan]:
        """Wait for spans with all of these names, and return one of each."""
        until = time.monotonic() + timeout
        with self._changed:
            while missing := set(names) - {span.name for span in self._spans_received}:
                left = until - time.monotonic()
                assert left > 0, f"no span {missing}; there are {[span.name for span in self._spans_received]}"
                self._changed.wait(left)
            return {span.name: span for span in self._spans_received if span.name in names}

    def take(self, path: str, headers: Any, body: bytes) -> int:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if self.silent:
            self._released.wait(30)
        assert path == "/v1/traces", path
        assert headers["Content-Type"] == "application/x-protobuf"
        body = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        found = list(_spans(ExportTraceServiceRequest.FromString(body)))
        with self._changed:
            self.bodies.append(body)
            if self.status == 200:
                self._spans_received += found
            self._changed.notify_all()
        return self.status

    def release(self) -> None:
        self._released.set()


def _spans(request: Any) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = _values(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                kind = type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
                yield ReceivedSpan(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), kind,
                    span.status.code == 2, span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9,
                    _values(span.attributes), resource,
                )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Yield a running collector; its address is ``.url``."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = collector.take(self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        collector.release()
        server.shutdown()
        server.server_close()
        thread.join()
