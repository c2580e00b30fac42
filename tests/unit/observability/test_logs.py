"""Logging: IDs on each line, forged lines, rotation, and lines of workers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diarist.observability import log_handlers, logs
from diarist.settings import Settings

HOSTILE = "a\r\n2026-01-01 ERROR forged \x1b[31m\x9b \u2028 \u202e \ud800 \x00 \x85"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """``configured(**settings)`` configures the root logger and gives the console; all is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.unraisablehook, threading.excepthook
    console = io.StringIO()
    defaults = {"log_file": tmp_path / "new" / "folder" / "service.log"}

    def configure(**settings: object) -> io.StringIO:
        # Not sooner: pytest puts its own stderr in place between fixture and test.
        monkeypatch.setattr(sys, "stderr", console)
        logs.configure(Settings(_env_file=None, **defaults | settings))
        return console

    yield configure
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    for name in ("diarist", "nemo_logger", *logs._VERBOSE_LOGGERS, *logs._WARNING_LOGGERS):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, hooks[0]
    threading.excepthook = hooks[1]


@pytest.fixture
def ids():
    request, job = logs.request_id.set("the-request"), logs.job_id.set("the-job")
    yield
    logs.request_id.reset(request)
    logs.job_id.reset(job)


def fail() -> None:
    try:
        int(HOSTILE)
    except ValueError:
        logging.getLogger("diarist.test").exception("It failed: %s", HOSTILE)


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_console_and_file_have_the_same_lines(configured, ids, tmp_path, log_format):
    console = configured(log_format=log_format)
    logging.getLogger("diarist.test").info("Hello %s", "you")
    lines = console.getvalue()
    assert lines == (tmp_path / "new" / "folder" / "service.log").read_text()
    assert all(text in lines for text in ("Hello you", "INFO", "diarist.test", "the-request", "the-job"))


def test_a_plain_line(configured, ids):
    console = configured()
    logging.getLogger("diarist.test").warning("Hello")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    line = rf"{stamp} WARNING diarist\.test \[request=the-request job=the-job\] Hello\n"
    assert re.fullmatch(line, console.getvalue())


def test_a_json_line(configured, ids):
    console = configured(log_format="json")
    fail()
    (line,) = console.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["level"] == "ERROR"
    assert fields["logger"] == "diarist.test"
    assert (fields["request_id"], fields["job_id"]) == ("the-request", "the-job")
    assert fields["message"] == f"It failed: {HOSTILE}"
    assert "ValueError" in fields["exc_info"]
    assert "timestamp" in fields
    assert line.isascii()


def test_a_json_line_has_only_what_there_is(configured):
    console = configured(log_format="json")
    logging.getLogger("diarist.test").info("Hello")
    assert set(json.loads(console.getvalue())) == {"timestamp", "level", "logger", "message"}


def test_nothing_hostile_reaches_a_plain_log(configured, tmp_path):
    console = configured()
    fail()
    first, *others = console.getvalue().splitlines()
    assert "forged" in first
    assert others
    assert all(line.startswith("    | ") for line in others)
    for text in (console.getvalue(), (tmp_path / "new" / "folder" / "service.log").read_text()):
        assert not set(text) & set("\r\x1b\x9b\u2028\u202e\ud800\x00\x85")


def test_an_id_that_was_given_with_the_record_comes_first(configured, ids):
    console = configured()
    logging.getLogger("diarist.test").info("Hello", extra={"request_id": "another"})
    assert "[request=another job=the-job]" in console.getvalue()


def test_configuring_again_replaces(configured):
    configured()
    console = configured()
    logging.getLogger("diarist.test").info("once")
    assert console.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"log_level": "WARNING"}, {"diarist": "WARNING", "nemo_logger": "ERROR", "other": "WARNING"}),
        ({"nemo_log_level": "INFO"}, {"diarist": "INFO", "nemo_logger": "INFO", "other": "INFO"}),
        ({"flask_debug": True}, {"diarist": "DEBUG", "nemo_logger": "ERROR", "urllib3": "INFO"}),
        ({"log_level": "DEBUG"}, {"diarist": "DEBUG", "urllib3": "INFO", "other": "DEBUG"}),
    ],
)
def test_levels(configured, settings, shown):
    configured(**settings)
    levels = {name: logging.getLevelName(logging.getLogger(name).getEffectiveLevel()) for name in shown}
    assert levels == shown


def test_a_burst_of_requests_is_no_reason_for_warnings(configured):
    console = configured()
    logging.getLogger("waitress.queue").warning("Task queue depth is 7")
    assert console.getvalue() == ""
    logging.getLogger("waitress").warning("Something else")
    assert "Something else" in console.getvalue()


def test_a_folder_that_cannot_be_written_costs_a_warning(configured, tmp_path):
    (tmp_path / "file").touch()
    console = configured(log_file=tmp_path / "file" / "service.log")
    logging.getLogger("diarist.test").info("still here")
    assert "LOG_FILE" in console.getvalue()
    assert "still here" in console.getvalue()


def test_the_file_is_rotated(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(log_handlers, "FILE_BYTES", 2_000)
    monkeypatch.setattr(log_handlers, "BACKUP_FILES", 2)
    configured(log_file=tmp_path / "service.log")
    for number in range(200):
        logging.getLogger("diarist.test").info("line %d", number)
    assert sorted(path.name for path in tmp_path.glob("service.log*")) == [
        "service.log", "service.log.1", "service.log.2",
    ]  # fmt: skip
    assert "line 199" in (tmp_path / "service.log").read_text()
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.glob("service.log*"))


def test_only_this_user_can_read_the_file(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(log_handlers, "FILE_BYTES", 2_000)
    old = [tmp_path / name for name in ("service.log", "service.log.3")]
    for path in old:
        path.touch()
        path.chmod(0o644)
    before = os.umask(0)
    try:
        configured(log_file=tmp_path / "service.log")
        for number in range(50):
            logging.getLogger("diarist.test").info("line %d", number)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("service.log*")} == {0o600}
    group = tmp_path / "group.log"
    group.touch()
    group.chmod(0o640)
    configured(log_file=group)
    assert stat.S_IMODE(group.stat().st_mode) == 0o640, "the operator's choice"


def test_a_file_that_was_removed_is_made_anew(configured, tmp_path):
    configured(log_file=tmp_path / "logs" / "service.log")
    logger = logging.getLogger("diarist.test")
    logger.info("before")
    shutil.rmtree(tmp_path / "logs")
    logger.info("after")
    assert "after" in (tmp_path / "logs" / "service.log").read_text()


class TestLinesThatCannotBeWritten:
    def test_they_are_missing_from_one_place_alone(self, configured, tmp_path):
        console = configured(log_file=tmp_path / "logs" / "service.log", api_key="a-secret-of-the-operator")
        logger = logging.getLogger("diarist.test")
        shutil.rmtree(tmp_path / "logs")
        (tmp_path / "logs").touch()
        for number in range(3):
            logger.info("%d: a-secret-of-the-operator", number)
        said = console.getvalue()
        assert "secret" not in said
        assert "2: ***" in said
        assert said.count("Log lines are missing from the log file") == 1
        (tmp_path / "logs").unlink()
        logger.info("again")
        assert "again" in (tmp_path / "logs" / "service.log").read_text()
        shutil.rmtree(tmp_path / "logs")
        (tmp_path / "logs").touch()
        logger.info("and again not")
        assert console.getvalue().count("Log lines are missing from the log file") == 2

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_console_that_is_full_leaves_the_file(self, configured, tmp_path, monkeypatch):
        configured(log_file=tmp_path / "service.log")
        with Path("/dev/full").open("w", buffering=1) as full:
            monkeypatch.setattr(sys, "stderr", full)
            logs.configure(Settings(_env_file=None, log_file=tmp_path / "service.log"))
            logging.getLogger("diarist.test").info("still here")
            assert "still here" in (tmp_path / "service.log").read_text()
            assert "missing from the console" in (tmp_path / "service.log").read_text()
            monkeypatch.undo()
            with contextlib.suppress(OSError):
                full.close()

    def test_what_cannot_be_formatted_is_not_printed(self, configured, monkeypatch):
        console = configured(log_format="json")

        def broken(record: logging.LogRecord) -> str:
            raise ValueError(f"a-secret in {record.msg}")

        for handler in logging.getLogger().handlers:
            if getattr(handler, "diarist", False):
                monkeypatch.setattr(handler.formatter, "format", broken)
        logging.getLogger("diarist.test").info("a-secret")
        assert "secret" not in console.getvalue()


def test_a_workers_records_are_logged_as_if_they_were_ours(configured, ids, monkeypatch, tmp_path):
    configured()
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.configure_worker(Settings(_env_file=None))
    fail()
    (line,) = stderr.getvalue().splitlines()
    own = io.StringIO()
    monkeypatch.setattr(sys, "stderr", own)
    logs.configure(Settings(_env_file=None, log_file=tmp_path / "b.log"))
    logs.request_id.set("not-this")
    logs.relay(line + "\n")
    assert (
        "ERROR diarist.test [request=the-request job=the-job] It failed: a\\r\\n2026-01-01 ERROR forged"
        in own.getvalue()
    )
    assert "    | ValueError: " in own.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        "plain words",
        "{",
        "[]",
        "null",
        '{"diarist_log": 1}',
        '{"diarist_log": 1, "level": "x"}',
        '{"level": 20}',
        "\x1b[31m",
    ],
)
def test_lines_that_are_no_records_are_logged_as_they_stand(configured, line):
    console = configured()
    logs.relay(line + "\n")
    assert console.getvalue().rstrip("\n").endswith(f"INFO diarist.worker {logs.escape(line)}")


def test_empty_lines_of_a_worker_are_dropped(configured):
    console = configured()
    logs.relay("\n")
    assert console.getvalue() == ""


def test_a_workers_records_below_our_level_are_dropped(configured):
    console = configured(log_level="ERROR")
    logs.relay(json.dumps({"diarist_log": 1, "created": 0, "level": 20, "logger": "diarist.test", "message": "quiet"}))
    assert console.getvalue() == ""


def test_warnings_are_logged(configured):
    import warnings

    console = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("Mind this.", UserWarning, stacklevel=1)
    assert "WARNING py.warnings" in console.getvalue()
    assert "Mind this." in console.getvalue()


def lines_of(console: io.StringIO) -> list[dict]:
    """Every line as the JSON object that it must be, read as strictly as the standard has it."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in console.getvalue().splitlines()]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    "extra",
    [
        {"data": {1: object(), "deep": {"er": [{"still": {"deeper": {"and": 1}}}]}}},
        {"number": float("nan"), "other": float("-inf"), "list": [float("inf")]},
        {"raw": b"\xff\x00", "set": {1}, "error": ValueError(HOSTILE)},
        {"bad": Unprintable(), "list": [Unprintable()]},
        {HOSTILE: HOSTILE},
    ],
)
def test_what_libraries_put_on_a_record_stays_one_json_object(configured, extra):
    console = configured(log_format="json")
    logging.getLogger("celery.worker").info("words", extra=extra)
    (fields,) = lines_of(console)
    assert fields["message"] == "words"
    assert set(extra) < set(fields)


def test_a_record_that_contains_itself_stays_one_json_object(configured):
    console = configured(log_format="json")
    loop: dict[str, object] = {}
    loop["itself"] = loop
    logging.getLogger("other").info("words", extra={"loop": loop})
    assert lines_of(console)[0]["message"] == "words"


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_line_whose_arguments_do_not_fit_is_still_a_line(configured, log_format):
    console = configured(log_format=log_format)
    record = logging.getLogger("other").makeRecord("other", logging.INFO, "", 0, "%d of %s", ("one",), None)
    # Not by the logger: pytest's own handler fails the test for such a line.
    next(handler for handler in logging.getLogger().handlers if hasattr(handler, "diarist")).handle(record)
    (line,) = console.getvalue().splitlines()
    assert "%d of %s" in line
    assert "one" in line


def test_warnings_and_stacks_are_one_json_object_each(configured):
    import warnings

    console = configured(log_format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"Mind\nthis {HOSTILE}", UserWarning, stacklevel=1)
    logging.getLogger("other").info("stack", stack_info=True)
    warned, stack = lines_of(console)
    assert "Mind\nthis" in warned["message"]
    assert "Stack (most recent call last)" in stack["exc_info"]


def test_a_logger_cannot_forge_a_line_by_its_name(configured):
    console = configured()
    logging.getLogger(f"other.{HOSTILE}").info("words")
    assert len(console.getvalue().splitlines()) == 1
    assert "\x1b" not in console.getvalue()


def test_what_ends_a_process_or_a_thread_is_logged_as_json(tmp_path):
    program = """
import threading
from pathlib import Path
from diarist.observability import logs
from diarist.settings import Settings

logs.configure(Settings(_env_file=None, log_format="json", log_file=Path("service.log")))

class Ends:
    def __del__(self):
        raise KeyError("third")

def fail():
    raise ValueError("first")

thread = threading.Thread(target=fail, name="outbox")
thread.start()
thread.join()
Ends()
raise LookupError("last")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["exc_info"].splitlines()[-1] for line in lines] == [
        "ValueError: first", "KeyError: 'third'", "LookupError: last",
    ]  # fmt: skip
    assert "outbox" in lines[0]["message"]
    assert (tmp_path / "service.log").read_text() == ended.stderr


def test_celery_leaves_logging_to_us(tmp_path):
    """As the consumer of a fleet is set up: whoever connects ``setup_logging`` keeps Celery's hands off the root."""
    pytest.importorskip("celery")
    program = """
import logging
from celery import Celery, signals
from diarist.observability import logs
from diarist.settings import Settings

settings = Settings(_env_file=None, log_format="json", queue_url="redis://:a-long-password@127.0.0.1:1/0")
logs.configure(settings, to_file=False)
app = Celery("diarist", broker=settings.queue_url)
signals.setup_logging.connect(lambda **_: None, weak=False)
app.log.setup(redirect_stdouts=False)
logging.getLogger("celery.worker.consumer").error("consumer: Cannot connect to %s", settings.queue_url)
logging.getLogger("kombu").warning("a-long-password\\nforged")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("celery.worker.consumer", "consumer: Cannot connect to redis://:***@127.0.0.1:1/0"),
        ("kombu", "***\nforged"),
    ]
    assert not (tmp_path / "logs").exists()


def test_a_workers_name_and_trace_come_with_its_lines(configured, ids, monkeypatch, tmp_path):
    configured()
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.configure_worker(Settings(_env_file=None), "host-00-abcd")
    trace = logs.trace_id.set("0af7651916cd43dd8448eb211c80319c")
    try:
        logging.getLogger("diarist.test").info("Hello")
    finally:
        logs.trace_id.reset(trace)
    own = io.StringIO()
    monkeypatch.setattr(sys, "stderr", own)
    logs.configure(Settings(_env_file=None, log_file=tmp_path / "b.log", log_format="json"))
    logs.relay(stderr.getvalue())
    logs.relay("printed by a library\n", "host-00-abcd")
    own, printed = lines_of(own)
    assert own["worker"] == printed["worker"] == "host-00-abcd"
    assert own["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (own["request_id"], own["job_id"]) == ("the-request", "the-job")


def test_about_names_what_a_thread_is_about(configured, ids):
    console = configured()
    with logs.log_context(job="the-job"):
        logging.getLogger("diarist.test").info("within")
    logging.getLogger("diarist.test").info("after")
    within, after = console.getvalue().splitlines()
    assert "[request=the-request job=the-job] within" in within
    assert "[request=the-request job=the-job] after" in after


SECRETS = {
    "api_key": "an-api-key-of-the-environment",
    "webhook_secret": "what-webhooks-are-derived-from",
    "s3_secret_key": "s3/secret+key",
    "database_url": "postgresql://diarist:a%2Fquoted%2Fpassword@host/name",
    "queue_url": "redis://:the-redis-password@host:6379/0",
}


@pytest.mark.parametrize("log_format", ["plain", "json"])
@pytest.mark.parametrize(
    "secret", ["an-api-key-of-the-environment", "what-webhooks-are-derived-from", "s3/secret+key",
               "a%2Fquoted%2Fpassword", "a/quoted/password", "the-redis-password"],
)  # fmt: skip
def test_the_secrets_of_the_settings_are_never_logged(configured, tmp_path, log_format, secret):
    console = configured(log_format=log_format, **SECRETS)
    try:
        int(f"in an error: {secret}")
    except ValueError:
        logging.getLogger("other").exception("In words: %s.", secret, extra={"field": {"inner": [secret]}})
    written = console.getvalue()
    assert "In words: ***." in written
    assert "in an error: ***" in written
    assert secret not in written
    assert secret not in (tmp_path / "new" / "folder" / "service.log").read_text()


def test_a_field_whose_name_says_secret_is_never_logged(configured):
    console = configured(log_format="json")
    headers = {"Authorization": "short", "X-API-Key": "short", "Accept": "text/plain"}
    logging.getLogger("other").info("words", extra={"headers": headers, "password": "x"})
    (fields,) = lines_of(console)
    assert fields["headers"] == {"Authorization": "***", "X-API-Key": "***", "Accept": "text/plain"}
    assert fields["password"] == "***"
