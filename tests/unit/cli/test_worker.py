"""``diarist worker`` passes its options to the workers, which the tests of the fleet cover."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from diarist.cli import main
from diarist.settings import Settings


@pytest.fixture
def asked(folder, monkeypatch) -> list[Settings]:
    """The settings that workers were started with, in the place of workers."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("QUEUE_URL", "redis://127.0.0.1:1/0")
    given: list[Settings] = []
    monkeypatch.setattr("diarist.jobs.workers.node.run_workers", given.append)
    monkeypatch.setattr("diarist.observability.logs.configure", lambda *_, **__: None)
    return given


def run(*arguments: str):
    return CliRunner().invoke(main, ["worker", *arguments])


def test_options_come_before_the_environment(asked, monkeypatch):
    monkeypatch.setenv("QUEUES", "cpu")
    monkeypatch.setenv("DRAIN_S", "7")
    assert run().exit_code == 0
    assert (asked[0].queues, asked[0].drain_s, asked[0].workers) == ("cpu", 7.0, 0)
    result = run("--queues", "any,gpu", "--workers", "3", "--drain", "0", "--engine", "nemo", "--model", "small")
    assert result.exit_code == 0, result.output
    settings = asked[1]
    assert (settings.queues, settings.workers, settings.drain_s, settings.engine) == ("any,gpu", 3, 0.0, "nemo")
    assert settings.model == "small"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "65"), "--workers"),
        (("--workers", "-1"), "--workers"),
        (("--drain", "soon"), "--drain"),
        (("--queues", "any, gpu"), "QUEUES"),
        (("--queues", "GPU"), "QUEUES"),
        (("extra",), "extra"),
    ],
)
def test_values_that_cannot_be(asked, arguments, said):
    result = run(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert asked == []


def test_without_a_queue_it_says_what_to_run(folder, monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("diarist.observability.logs.configure", lambda *_, **__: None)
    result = run()
    assert result.exit_code == 2
    assert "QUEUE_URL is not set" in result.output
    assert "diarist serve" in result.output
    assert "Traceback" not in result.output


def test_help_names_the_settings_behind_the_options():
    text = run("--help").output
    for name in ("QUEUES", "WORKERS", "DATABASE_URL", "QUEUE_URL", "MEDIA_URL"):
        assert name in text
    assert "DRAIN_S" in text
