"""Tracing by OpenTelemetry if TRACES enables it, with almost no overhead otherwise.

A trace passes from process to process as a W3C ``traceparent``: it arrives with a request, is stored with the job, and
continues in the worker that claims the job. This also happens if no traces are sent, so that log lines always contain
the trace ID.

Attributes are numbers and fixed words, never texts, file names, addresses or keys of clients. Of an error only its kind
is recorded, not its message.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeAlias, cast

from diarist import __version__
from diarist.errors import Cancelled, ConfigurationError, DiaristError
from diarist.observability import logs
from diarist.settings import Settings
from diarist.types import Seconds

logger = logging.getLogger(__name__)

Value: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["internal", "server", "client", "consumer", "producer"]

EXPORT_TIMEOUT_S = 5.0
"""The maximum time that the collector may take to respond. Only the export thread waits for it."""

FLUSH_TIMEOUT_S = 2.0
"""The maximum time that an ending process waits for its last spans to be sent."""

EXPORT_INTERVAL_S = 2.0
"""The time that spans are collected before they are sent together."""

CURRENT = "current"
"""The value of ``parent`` for the current span of this thread."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

# https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and .../general/attributes/
_SEMANTIC_CONVENTIONS = {
    "http_method": "http.request.method",
    "http_route": "http.route",
    "http_status": "http.response.status_code",
    "error_type": "error.type",
}


class Span(Protocol):
    """Represents an operation that is being traced."""

    def set_attributes(self, **attributes: Value) -> None:
        """Add attributes to the span."""
        ...

    def fail(self, error_type: str) -> None:
        """Mark the span as failed. ``error_type`` is the reason, as one lower-case word or a number."""
        ...


class _NoOpSpan:
    """Represents an operation that is not traced."""

    def set_attributes(self, **attributes: Value) -> None:
        pass

    def fail(self, error_type: str) -> None:
        pass


_NO_OP_SPAN = _NoOpSpan()
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
_span: ContextVar[Span] = ContextVar("span", default=_NO_OP_SPAN)
_tracing: _Tracing | None = None


def configure(settings: Settings, process: str, instance: str = "") -> None:
    """Send the traces of this process if the settings say so. Another call replaces the previous configuration.

    Args:
        settings: The settings, of which TRACES and OTLP_ENDPOINT are used.
        process: The role of this process, such as ``api`` or ``worker``.
        instance: The name of this process; if empty, it is made of the host name and the process ID.

    Raises:
        ConfigurationError: OpenTelemetry is not installed, or OTLP_ENDPOINT is not a URL.
    """
    global _tracing  # noqa: PLW0603 - like logging, tracing is configured per process
    stop()
    if settings.traces == "otlp":
        _tracing = _Tracing(settings.otlp_endpoint, process, instance or f"{socket.gethostname()}-{os.getpid()}")


def stop() -> None:
    """Send the remaining spans, for at most ``FLUSH_TIMEOUT_S``, and stop tracing."""
    global _tracing
    tracing, _tracing = _tracing, None
    if tracing is not None:
        tracing.stop()


atexit.register(stop)


def current_traceparent() -> str | None:
    """Return the current ``traceparent``, to pass it on, or None outside of a trace."""
    return _traceparent.get()


def current_span() -> Span:
    """Return the current span of this thread, which does nothing if the work is not traced."""
    return _span.get()


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the ID of the trace, 32 hexadecimal digits, or None if this is not a valid ``traceparent``.

    See https://www.w3.org/TR/trace-context/#traceparent-header.
    """
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    return match[2] if int(match[2], 16) and int(match[3], 16) else None


@contextmanager
def span(name: str, *, parent: str | None = CURRENT, kind: Kind = "internal", **attributes: Value) -> Iterator[Span]:
    """Trace the work in the context.

    Args:
        name: The name of the operation, from a small set.
        parent: The ``traceparent`` of the parent, from another process or thread. None or an invalid one starts a new
            trace.
        kind: The relation of the span to its parent.
        attributes: The attributes that are already known.
    """
    parent_traceparent = _parent_traceparent(parent)
    if _tracing is None and parent_traceparent == _traceparent.get():
        yield _NO_OP_SPAN
        return
    recorded = None if _tracing is None else _tracing.begin(name, parent_traceparent, kind, attributes)
    at = parent_traceparent if recorded is None else recorded.traceparent
    tokens = _traceparent.set(at), logs.trace_id.set(trace_id_of(at)), _span.set(recorded or _NO_OP_SPAN)
    try:
        yield recorded or _NO_OP_SPAN
    except BaseException as error:
        if recorded is not None:
            recorded.fail_with(error)
        raise
    finally:
        _traceparent.reset(tokens[0])
        logs.trace_id.reset(tokens[1])
        _span.reset(tokens[2])
        if recorded is not None:
            recorded.end()


def record(
    name: str, started: Seconds, ended: Seconds, *, parent: str | None = CURRENT, kind: Kind = "internal", **more: Value
) -> None:
    """Record an operation that has already ended, with its start and end in seconds since 1970."""
    if _tracing is not None:
        _tracing.begin(name, _parent_traceparent(parent), kind, more, started).end(max(ended, started))


def _parent_traceparent(parent: str | None) -> str | None:
    if parent == CURRENT:
        return _traceparent.get()
    # Later versions may append fields, which this version must not pass on.
    return None if trace_id_of(parent) is None else f"00{str(parent)[2:55]}"


class _Tracing:
    """The OpenTelemetry tracer, with an exporter that sends from a thread of its own."""

    def __init__(self, endpoint: str, process: str, instance: str) -> None:
        if not re.match(r"https?://[^/\s]+", endpoint):
            raise ConfigurationError(
                f"OTLP_ENDPOINT {endpoint!r} is not a URL. Set it to the URL of a collector that accepts "
                "OTLP over HTTP, such as http://127.0.0.1:4318, or set TRACES to none."
            )
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigurationError(
                f"TRACES=otlp needs OpenTelemetry, which is not installed ({error}). Install it with "
                "`pip install 'diarist[tracing]'`, or set TRACES to none."
            ) from error
        self._trace = trace
        url = f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
        self._export_errors = _ExportErrors()
        self._exporter = _Exporter(OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S), url, self._export_errors)
        resource = Resource.create(
            {
                "service.name": "diarist",
                "service.version": __version__,
                "service.instance.id": instance,
                "diarist.process": process,
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(cast("Any", self._exporter), schedule_delay_millis=EXPORT_INTERVAL_S * 1000)
        )
        self._tracer = self._provider.get_tracer("diarist", __version__)

    def begin(
        self,
        name: str,
        parent_traceparent: str | None,
        kind: Kind,
        attributes: Mapping[str, Value],
        at: Seconds | None = None,
    ) -> _RecordedSpan:
        trace = self._trace
        started = self._tracer.start_span(
            name,
            context=self._context(parent_traceparent),
            kind=trace.SpanKind[kind.upper()],
            attributes=_attribute_names(attributes),
            start_time=None if at is None else int(at * 1e9),
        )
        return _RecordedSpan(started, trace.Status(trace.StatusCode.ERROR))

    def stop(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(FLUSH_TIMEOUT_S)
        if ending.is_alive():
            self._exporter.shutdown()  # interrupts the wait between two attempts
            ending.join(0.5)
        self._export_errors.close()

    def _context(self, parent_traceparent: str | None) -> Any:
        """Return the OpenTelemetry context of the parent; an empty context starts a new trace."""
        from opentelemetry.context import Context

        if parent_traceparent is None:
            return Context()
        _, trace_id, span_id, flags = parent_traceparent.split("-")[:4]
        trace = self._trace
        context = trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16) & 3)
        )
        return trace.set_span_in_context(trace.NonRecordingSpan(context), Context())


class _RecordedSpan:
    """Represents a span that OpenTelemetry records."""

    def __init__(self, span: Any, failed: Any) -> None:
        self._span = span
        self._failed = failed

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set_attributes(self, **attributes: Value) -> None:
        self._span.set_attributes(_attribute_names(attributes))

    def fail(self, error_type: str) -> None:
        self.set_attributes(error_type=error_type)
        self._span.set_status(self._failed)

    def fail_with(self, error: BaseException) -> None:
        # The message is left out: it may name a file, or quote a client's input.
        kind = error.code if isinstance(error, DiaristError) else type(error).__name__
        if isinstance(error, Cancelled):
            self.set_attributes(canceled=True)
        else:
            self.fail(kind)

    def end(self, at: Seconds | None = None) -> None:
        self._span.end(None if at is None else int(at * 1e9))


class _Exporter:
    """Sends spans, and logs once when sending starts to fail and once when it works again."""

    def __init__(self, inner: Any, url: str, export_errors: _ExportErrors) -> None:
        self._inner = inner
        self._url = url
        self._export_errors = export_errors
        self._dropped = 0

    def export(self, spans: Any) -> Any:
        result = self._inner.export(spans)
        if result.name != "SUCCESS":
            if not self._dropped:
                logger.warning(
                    "Traces cannot be sent to %s (%s). Spans are dropped until the collector accepts them; the service "
                    "is not affected. Check OTLP_ENDPOINT and the collector.",
                    self._url, self._export_errors.last or "no response",
                )  # fmt: skip
            self._dropped += len(spans)
        elif self._dropped:
            logger.info(
                "Traces are sent to %s again; at least %d spans were lost in the meantime", self._url, self._dropped
            )
            self._dropped = 0
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._inner.force_flush(timeout_millis))


class _ExportErrors(logging.Handler):
    """Captures the error messages of OpenTelemetry, one for each batch of spans, and stores the last one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._source = logging.getLogger("opentelemetry")
        self._source.addHandler(self)
        self._source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if ".exporter." in record.name and "hutdown" not in message and "due to timeout" not in message:
            self.last = re.sub(r"^Transient error (.*) encountered while .*", r"\1", message).rstrip(".")

    def close(self) -> None:
        self._source.removeHandler(self)
        self._source.propagate = True
        super().close()


def _attribute_names(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {_SEMANTIC_CONVENTIONS.get(name, f"diarist.{name}"): value for name, value in attributes.items()}
