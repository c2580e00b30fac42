"""Checks of the real engine, and of engines that cannot be loaded."""

from __future__ import annotations

import shutil

import pytest

from diarist.doctor import engine
from diarist.engines import registry
from diarist.settings import Settings


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data")


def test_a_second_of_sound_is_decoded(settings):
    assert engine.check_decoder(settings).level == "ok"


def test_a_decoder_that_may_not_use_memory_is_an_error(settings):
    from diarist.doctor.findings import run_concurrently

    ((_, found),) = run_concurrently(
        {"decoder": engine.check_decoder}, settings.model_copy(update={"decode_timeout_s": 0.0})
    )
    assert found.level == "error"
    assert "DECODE_TIMEOUT_S" in found.message


def test_the_libraries_of_the_engine_are_loaded(settings):
    assert engine.check_engine(settings).level == "ok"


def test_every_diarizer_and_recognizer_has_its_libraries():
    assert engine.LIBRARIES.keys() == registry.DIARIZERS.keys() | registry.RECOGNIZERS.keys()


def test_libraries_that_are_missing_are_an_error_that_says_what_to_do(settings, monkeypatch):
    monkeypatch.setattr(engine, "LIBRARIES", engine.LIBRARIES | {"embedded": ("no_such_library_anywhere",)})
    found = engine.check_engine(settings)
    assert found.level == "error"
    assert "no_such_library_anywhere" in found.message
    assert "pip install diarist" in found.message


def test_a_library_that_takes_its_process_down_is_an_error(settings, monkeypatch, tmp_path):
    (tmp_path / "takes_down.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine, "LIBRARIES", engine.LIBRARIES | {"embedded": ("takes_down",)})
    assert engine.check_engine(settings).level == "error"


def test_models_that_are_missing_are_named(settings, tmp_path):
    found = engine.check_models(settings.model_copy(update={"model_dir": tmp_path / "models"}))
    assert found.level == "error"
    for name in ("segmentation-3.0", "campplus", "whisper-base", "diarist models pull"):
        assert name in found.message


def test_exported_models_that_are_missing_are_named(settings, tmp_path):
    changes = {"model_dir": tmp_path / "models", "recognizer": "onnx", "diarizer": "onnx"}
    found = engine.check_models(settings.model_copy(update=changes))
    assert found.level == "error"
    assert "titanet_large" in found.message


@pytest.mark.models
def test_models_that_are_there_are_read(model_store, settings, tmp_path):
    assert engine.check_models(settings).level == "ok"
    copied = tmp_path / "models"
    shutil.copytree(model_store.root / "campplus", copied / "campplus")
    graph = next((copied / "campplus").glob("*.onnx"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    assert "campplus" in engine.check_models(settings.model_copy(update={"model_dir": copied})).message
