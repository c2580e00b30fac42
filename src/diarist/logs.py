"""Logs of this process: console and rotating file, plain or JSON, with the ids of the request and the job on each line.

Only the service's own process writes the file. A worker process calls ``configure_worker``, which writes one JSON
object a line to its stderr; the service reads those lines and hands each to ``relay``, so that rotation has one owner.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler

from pythonjsonlogger.json import JsonFormatter

from diarist.settings import Settings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered; shown on every line that it causes."""

job_id: ContextVar[str | None] = ContextVar("job_id", default=None)
"""Id of the job that is being worked on."""

FILE_BYTES = 10 * 2**20
OLD_FILES = 5

# What could end a line, colour a terminal or turn the reading order: control characters, line and paragraph separators,
# bidirectional overrides, and halves of surrogate pairs, which no file can hold.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Libraries whose DEBUG lines would bury ours.
_CHATTY = ("httpcore", "httpx", "huggingface_hub", "urllib3", "filelock", "faster_whisper")

# Warns of every request that waits a moment for a thread. Callers beyond MAX_WAITING are refused, which is logged.
_ALARMIST = ("waitress.queue",)


def escape(text: str) -> str:
    r"""Text on one line of printable characters: a line break becomes ``\n``, an escape ``\x1b``.

    A backslash that is there already stays as it is: the aim is that no line can be forged, not that it reads back.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class _Context(logging.Filter):
    """Puts both ids on a record, unless the record carries them already (``extra``, or relayed from a worker)."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, variable in (("request_id", request_id), ("job_id", job_id)):
            if getattr(record, name, None) is None:
                setattr(record, name, variable.get())
        return True


class PlainFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123+00:00 INFO diarist.api [request=... job=...] words``.

    The lines of a traceback follow, each after a ``|``: words in it cannot pass for a line of the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        ids = " ".join(
            f"{label}={escape(str(value))}"
            for label, name in (("request", "request_id"), ("job", "job_id"))
            if (value := getattr(record, name, None)) is not None
        )
        line = f"{when} {record.levelname} {record.name}{f' [{ids}]' if ids else ''} {escape(record.getMessage())}"
        return "\n".join((line, *(f"    | {escape(part)}" for part in _details(record).splitlines())))


class _JsonFormatter(JsonFormatter):
    """One JSON object a line, in ASCII, so that nothing in it can break a line or a terminal."""

    def __init__(self) -> None:
        super().__init__("%(message)s", timestamp=True, json_ensure_ascii=True)

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in log_data.items() if value is not None}

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data.pop("details", None)
        if details := _details(record):
            log_data["exc_info"] = details


class _RelayFormatter(logging.Formatter):
    """A record as one JSON object a line, for ``relay`` in the process that owns the log."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "diarist_log": 1,
                "created": record.created,
                "level": record.levelno,
                "logger": record.name,
                "message": record.getMessage(),
                "request_id": getattr(record, "request_id", None),
                "job_id": getattr(record, "job_id", None),
                "details": _details(record),
            },
            default=str,
        )


def configure(settings: Settings) -> None:
    """Log to the console (stderr) and to ``settings.log_file``; calling it again replaces what it set before.

    A log file that cannot be written costs a warning on the console, not the service.
    """
    formatter = PlainFormatter() if settings.log_format == "plain" else _JsonFormatter()
    console: logging.Handler = logging.StreamHandler(sys.stderr)
    _install(settings, console, formatter)
    try:
        settings.log_file.parent.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(settings.log_file, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    except OSError as error:
        logging.getLogger(__name__).warning(
            "The log file %s cannot be written (%s), so logs go to the console alone. Set LOG_FILE to another place.",
            settings.log_file,
            error.strerror or error,
        )
    else:
        _add(file, formatter)


def configure_worker(settings: Settings) -> None:
    """Log to stderr in the form that ``relay`` takes: for processes whose stderr the service reads."""
    _install(settings, logging.StreamHandler(sys.stderr), _RelayFormatter())


def relay(line: str) -> None:
    """Log a line of a worker's stderr as if it had been logged here.

    A line that is no record (native libraries print to stderr too) is logged as it stands, under ``diarist.worker``.
    """
    text = line.rstrip("\r\n")
    record = _parse(text)
    if record is None:
        if text.strip():
            logging.getLogger("diarist.worker").info("%s", text)
        return
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _parse(text: str) -> logging.LogRecord | None:
    """The record that ``_RelayFormatter`` wrote as ``text``; None where it is something else."""
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
                "request_id": fields.get("request_id"),
                "job_id": fields.get("job_id"),
                "details": str(fields.get("details") or ""),
            }
        )
    except (ValueError, KeyError, TypeError):
        return None


def _install(settings: Settings, handler: logging.Handler, formatter: logging.Formatter) -> None:
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "diarist", False)]:
        root.removeHandler(old)
        old.close()
    _add(handler, formatter)
    root.setLevel(settings.log_level)
    logging.getLogger("diarist").setLevel("DEBUG" if settings.flask_debug else settings.log_level)
    logging.getLogger("nemo_logger").setLevel(settings.nemo_log_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in _ALARMIST:
        logging.getLogger(name).setLevel(max(logging.ERROR, root.level))
    logging.captureWarnings(capture=True)


def _add(handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.diarist = True  # type: ignore[attr-defined]
    handler.setFormatter(formatter)
    handler.addFilter(_Context())
    logging.getLogger().addHandler(handler)


def _details(record: logging.LogRecord) -> str:
    """The traceback of a record, its own or one that was relayed; empty where it has none."""
    parts = [getattr(record, "details", "")]
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(part.rstrip("\n") for part in parts if part)
