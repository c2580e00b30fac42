"""Logging of this process to the console and a rotating file, as plain text or JSON.

Each line carries the request, job, worker and trace IDs that it belongs to. Only the service's own process writes the
file. A worker process calls ``configure_worker``, which writes one JSON object per line to its stderr. The service
reads those lines and passes each to ``relay``, so that a single process rotates the file. Every record is a single line
(for JSON a single object), and secrets in it are masked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from diarist.observability.log_handlers import ConsoleHandler, LogFileHandler
from diarist.observability.redaction import MASK, Redactor, names_secret
from diarist.settings import Settings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The ID of the request that is being answered. It is added to every line that the request causes."""

job_id: ContextVar[str | None] = ContextVar("job_id", default=None)
"""The ID of the job that is being worked on."""

trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The ID of the current trace, 32 hexadecimal digits; ``diarist.observability.tracing`` sets it."""

# The context of a line: the attribute of its record, and its label in a plain line.
_IDS = (("request_id", "request"), ("job_id", "job"), ("worker", "worker"), ("trace_id", "trace"))

# Characters that could end a line, control a terminal or change the reading order: control characters, line and
# paragraph separators and bidirectional overrides; and lone surrogates, which cannot be encoded as UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Libraries whose DEBUG lines would outnumber all others.
_VERBOSE_LOGGERS = (
    "httpcore", "httpx", "huggingface_hub", "urllib3", "filelock", "faster_whisper",
    "amqp", "kombu", "celery", "redis", "botocore", "boto3", "s3transfer",
)  # fmt: skip

# Warns about every request that waits briefly for a thread. Requests beyond MAX_WAITING are rejected, which is logged.
_WARNING_LOGGERS = ("waitress.queue",)


def escape(text: str) -> str:
    r"""Return the text on one line of printable characters: a line break becomes ``\n``, an escape ``\x1b``.

    Existing backslashes stay as they are: the aim is that no line can be forged, not that the text can be restored.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


@contextlib.contextmanager
def log_context(*, request: str | None = None, job: str | None = None) -> Iterator[None]:
    """Add these IDs to every line that this thread logs in the context. An ID that is None stays as it is."""
    given = [(variable, value) for variable, value in ((request_id, request), (job_id, job)) if value is not None]
    tokens = [(variable, variable.set(value)) for variable, value in given]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


class _ContextFilter(logging.Filter):
    """Adds all IDs to a record, unless it already has them (from ``extra``, or relayed from a worker)."""

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        current = {
            "request_id": request_id.get() or None,
            "job_id": job_id.get() or None,
            "worker": self._worker,
            "trace_id": trace_id.get(),
        }
        for name, value in current.items():
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        try:
            record.getMessage()
        except Exception:  # noqa: BLE001 - a record whose arguments do not match its format is still logged
            record.msg, record.args = f"{record.msg} {record.args!r}", None
        return True


class PlainFormatter(logging.Formatter):
    """Formats lines like ``2026-01-31T12:00:00.123+00:00 INFO diarist.api [request=... job=...] message``.

    The lines of a traceback follow, each after a ``|``, so that no text in it can pass for a log line.
    """

    def __init__(self, mask: Redactor | None = None) -> None:
        super().__init__()
        self._mask = mask or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        ids = " ".join(
            f"{label}={escape(str(value))}"
            for name, label in _IDS
            if (value := getattr(record, name, None)) is not None
        )
        message = escape(self._mask(record.getMessage()))
        line = f"{when} {record.levelname} {escape(record.name)}{f' [{ids}]' if ids else ''} {message}"
        return "\n".join((line, *(f"    | {escape(part)}" for part in self._mask(_traceback(record)).splitlines())))


class _JsonFormatter(JsonFormatter):
    """Formats a record as one line with an ASCII JSON object, which cannot break a line or control a terminal."""

    def __init__(self, mask: Redactor) -> None:
        super().__init__("%(message)s", timestamp=True, json_ensure_ascii=True)
        self._mask = mask

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        return {str(name): self._json_value(str(name), value) for name, value in log_data.items() if value is not None}

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data.pop("details", None)
        log_data.pop("stack_info", None)
        if details := _traceback(record):
            log_data["exc_info"] = details

    def _json_value(self, name: str, value: object, depth: int = 4) -> object:
        """Return the value without secrets, as a type of JSON. Libraries log arbitrary objects, NaN and infinities."""
        if names_secret(name) and value:
            return MASK
        if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, Mapping) and depth:
            return {str(key): self._json_value(str(key), entry, depth - 1) for key, entry in value.items()}
        if isinstance(value, list | tuple) and depth:
            return [self._json_value("", entry, depth - 1) for entry in value]
        return self._mask(_safe_str(value))


class _RelayFormatter(logging.Formatter):
    """Formats a record as one line with a JSON object, for ``relay`` in the process that owns the log file."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "diarist_log": 1,
                "created": record.created,
                "level": record.levelno,
                "logger": record.name,
                "message": record.getMessage(),
                "details": _traceback(record),
                **{name: getattr(record, name, None) for name, _ in _IDS},
            },
            default=str,
        )


def configure(settings: Settings, *, to_file: bool = True) -> None:
    """Log to the console (stderr) and to ``settings.log_file``. Another call replaces the previous configuration.

    Exceptions that end a thread or the process are logged as well. If the log file cannot be written, a warning is
    logged to the console and the service continues.

    Args:
        settings: The format, the levels, the log file and the secrets to mask.
        to_file: Whether to write the log file. False if another process on this machine may write it: both would rotate
            it at the same time.
    """
    mask = Redactor.of(settings)
    formatter = PlainFormatter(mask) if settings.log_format == "plain" else _JsonFormatter(mask)
    _install(settings, ConsoleHandler(), formatter)
    _install_exception_hooks()
    if not to_file:
        return
    try:
        file = LogFileHandler(settings.log_file)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "The log file %s cannot be written (%s), so logs go only to the console. Set LOG_FILE to another path.",
            settings.log_file,
            error.strerror or error,
        )
    else:
        _add(file, formatter)


def configure_worker(settings: Settings, worker: str | None = None) -> None:
    """Log to stderr in the format of ``relay``, for processes whose stderr the service reads.

    ``worker`` is the name of this process, which is added to every line.
    """
    _install(settings, ConsoleHandler(), _RelayFormatter(), worker)
    _install_exception_hooks()


def relay(line: str, worker: str | None = None) -> None:
    """Log a line of a worker's stderr as if it had been logged in this process.

    A line that is not a record (native libraries also print to stderr) is logged unchanged under ``diarist.worker``,
    with the name of the worker if it is given.
    """
    text = line.rstrip("\r\n")
    record = _parse(text)
    if record is None:
        if text.strip():
            logging.getLogger("diarist.worker").info("%s", text, extra={"worker": worker})
        return
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _parse(text: str) -> logging.LogRecord | None:
    """Return the record that ``_RelayFormatter`` wrote as ``text``, or None if the text is something else."""
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("diarist_log") != 1:
            return None
        level = int(fields["level"])
        return logging.makeLogRecord(
            {
                "name": str(fields["logger"]),
                "levelno": level,
                "levelname": logging.getLevelName(level),
                "msg": str(fields["message"]),
                "created": float(fields["created"]),
                "details": str(fields.get("details") or ""),
                **{name: fields.get(name) for name, _ in _IDS},
            }
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _install(
    settings: Settings, handler: logging.Handler, formatter: logging.Formatter, worker: str | None = None
) -> None:
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "diarist", False)]:
        root.removeHandler(old)
        old.close()
    _add(handler, formatter, worker)
    root.setLevel(settings.log_level)
    logging.getLogger("diarist").setLevel("DEBUG" if settings.flask_debug else settings.log_level)
    logging.getLogger("nemo_logger").setLevel(settings.nemo_log_level)
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in _WARNING_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.ERROR, root.level))
    logging.captureWarnings(capture=True)


def _add(handler: logging.Handler, formatter: logging.Formatter, worker: str | None = None) -> None:
    handler.diarist = True  # type: ignore[attr-defined]
    handler.setFormatter(formatter)
    handler.addFilter(_ContextFilter(worker))
    logging.getLogger().addHandler(handler)


def _install_exception_hooks() -> None:
    """Log uncaught exceptions instead of printing them, since printed tracebacks are not log lines.

    Hooks that are already set, by a debugger or a test runner, stay in place.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _log_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _log_uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, where: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    logging.getLogger(__name__).critical(
        "The process ends because of an uncaught exception", exc_info=(kind, error, where)
    )


def _log_uncaught_in_thread(exception: threading.ExceptHookArgs) -> None:
    if exception.exc_type is SystemExit:
        return
    logging.getLogger(__name__).error(
        "The thread %s ends because of an uncaught exception", exception.thread.name if exception.thread else "-",
        exc_info=(exception.exc_type, exception.exc_value or exception.exc_type(), exception.exc_traceback),
    )  # fmt: skip


def _log_unraisable(exception: Any) -> None:
    logging.getLogger(__name__).error(
        "%s %r", exception.err_msg or "Exception ignored in", type(exception.object),
        exc_info=(exception.exc_type, exception.exc_value or exception.exc_type(), exception.exc_traceback),
    )  # fmt: skip


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a failing __str__ must not suppress the line
        return f"<{type(value).__name__}>"


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback of a record, its own or a relayed one; empty if it has none."""
    parts = [getattr(record, "details", "")]
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(part.rstrip("\n") for part in parts if part)
