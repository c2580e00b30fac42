"""``diarist doctor`` on an installation for the test."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from diarist.cli import main
from diarist.doctor.checks import CHECKS
from diarist.settings import Settings


@pytest.fixture
def installation(folder, monkeypatch):
    """Empty, with no setting of this machine's."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("FLASK_PORT", "0")
    monkeypatch.setenv("MIN_FREE_MB", "0")
    return folder


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
def test_a_fresh_installation_is_ok_and_unchanged(installation):
    seen = doctor()
    assert seen.exit_code == 0, seen.stdout
    lines = seen.stdout.splitlines()
    assert [line[9:].partition(":")[0] for line in lines] == ["settings", *CHECKS]
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert "\x1b" not in seen.stdout
    assert list(installation.iterdir()) == []


def test_problems_are_reported_with_advice(installation, monkeypatch):
    monkeypatch.setenv("MODEL_DIR", str(installation / "no-models"))
    monkeypatch.setenv("API_KEY", "short")
    seen = doctor("--json")
    assert seen.exit_code == 1
    told = json.loads(seen.stdout)
    assert told["result"] == "error"
    levels = {each["check"]: each["level"] for each in told["findings"]}
    assert list(levels) == ["settings", *CHECKS]
    assert (levels["models"], levels["API keys"], levels["decoder"]) == ("error", "error", "ok")
    messages = {each["check"]: each["message"] for each in told["findings"]}
    assert "diarist models pull" in messages["models"]
    assert "API_KEY has 5 characters" in messages["API keys"]


def test_settings_that_cannot_be_read_are_the_one_finding(installation, monkeypatch):
    monkeypatch.setenv("FLASK_PORT", "many")
    for arguments in ((), ("--json",)):
        seen = doctor(*arguments)
        assert seen.exit_code == 1
        assert "FLASK_PORT" in seen.stdout
    assert [each["check"] for each in json.loads(seen.stdout)["findings"]] == ["settings"]


def test_what_settings_hold_cannot_drive_the_terminal(installation, monkeypatch):
    monkeypatch.setenv("TRACES", "otlp")
    monkeypatch.setenv("OTLP_ENDPOINT", "\x1b[31mred")
    monkeypatch.setenv("MODEL_DIR", str(installation / "no-models"))
    assert "\x1b" not in doctor().stdout
