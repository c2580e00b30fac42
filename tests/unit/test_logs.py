"""Logs: ids on each line, nothing forged, rotation, and what a worker says."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from diarist import logs
from diarist.settings import Settings

HOSTILE = "a\r\n2026-01-01 ERROR forged \x1b[31m\x9b \u2028 \u202e \ud800 \x00 \x85"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """``configured(**settings)`` configures the root logger and gives the console; all is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
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
    for name in ("diarist", "nemo_logger", *logs._CHATTY, *logs._ALARMIST):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)


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
def test_console_and_file_say_the_same(configured, ids, tmp_path, log_format):
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
    monkeypatch.setattr(logs, "FILE_BYTES", 2_000)
    monkeypatch.setattr(logs, "OLD_FILES", 2)
    configured(log_file=tmp_path / "service.log")
    for number in range(200):
        logging.getLogger("diarist.test").info("line %d", number)
    assert sorted(path.name for path in tmp_path.glob("service.log*")) == [
        "service.log", "service.log.1", "service.log.2",
    ]  # fmt: skip
    assert "line 199" in (tmp_path / "service.log").read_text()
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.glob("service.log*"))


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
