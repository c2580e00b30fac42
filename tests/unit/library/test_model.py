"""Models that cannot be loaded, in their real process; tests/e2e/test_library.py has those that can."""

from __future__ import annotations

import logging

import psutil
import pytest

import diarist

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


@pytest.fixture
def empty(tmp_path) -> diarist.Settings:
    return diarist.load_settings(model_dir=tmp_path / "models")


def test_a_setting_that_is_wrong_is_named(empty):
    with pytest.raises(diarist.ConfigurationError, match="ENGINE"):
        diarist.load(engine="magic")
    with pytest.raises(diarist.ConfigurationError, match="CPU_THREADS"):
        diarist.load(threads=-1, settings=empty)
    with pytest.raises(diarist.ConfigurationError, match="no model 'basse'"):
        diarist.load(model="basse", settings=empty)


@pytest.mark.parametrize("function", [diarist.load, diarist.transcribe, diarist.diarize])
def test_a_model_that_is_missing_is_named(function, empty):
    arguments = () if function is diarist.load else ("meeting.wav",)
    with pytest.raises(diarist.ModelUnavailable, match=r"segmentation-3\.0 is not on this machine"):
        function(*arguments, offline=True, settings=empty)


def test_a_callback_can_stop_the_loading(empty):
    def stop(_stage: str, _done: float) -> None:
        raise diarist.Cancelled("enough")

    with pytest.raises(diarist.Cancelled, match="enough"):
        diarist.load(offline=True, settings=empty, on_progress=stop)


def test_the_log_of_the_engine_process_is_that_of_the_program(empty, caplog):
    caplog.set_level(logging.INFO, "diarist")
    damaged = empty.model_dir / "segmentation-3.0" / "pytorch_model.bin"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    with pytest.raises(diarist.ModelError):
        diarist.load(offline=True, settings=empty)
    levels = {(record.name, record.levelname) for record in caplog.records}
    assert ("diarist.models.store", "WARNING") in levels
    assert ("diarist.library.loading", "INFO") in levels


def test_a_program_that_is_not_there_is_an_error(empty, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    with pytest.raises(diarist.EngineUnavailable, match="cannot be started"):
        diarist.load(offline=True, settings=empty)
