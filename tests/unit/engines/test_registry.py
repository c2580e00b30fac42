"""Which engine is loaded, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from diarist.engines import registry
from diarist.errors import EngineUnavailable, ModelUnavailable
from diarist.protocols import Engine
from diarist.settings import Settings, load_settings


def test_every_engine_that_can_be_set_has_a_factory():
    assert set(get_args(Settings.model_fields["engine"].annotation)) == set(registry.FACTORIES)


def test_the_configured_engine_is_made_with_the_settings(monkeypatch):
    asked = []

    def make(settings):
        asked.append(settings)
        return Engine("other", None, None, ())

    monkeypatch.setattr(registry, "FACTORIES", {"embedded": make})
    settings = load_settings(engine="embedded")
    assert registry.load_engine(settings).name == "other"
    assert asked == [settings]


def test_a_library_that_is_missing_is_named_with_what_to_do(monkeypatch):
    def make(_settings):
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setattr(registry, "FACTORIES", {"embedded": make})
    with pytest.raises(EngineUnavailable, match=r"onnxruntime.*make setup") as raised:
        registry.load_engine(load_settings())
    assert isinstance(raised.value.__cause__, ImportError)


def test_models_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"diarist models pull"):
        registry.load_engine(load_settings(model_dir=tmp_path))


def test_the_registry_itself_loads_no_library():
    program = (
        "import sys, diarist.engines.registry; "
        "print(*{'onnxruntime', 'faster_whisper', 'kaldi_native_fbank'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert loaded.stdout.split() == []


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
def test_the_embedded_engine_loads_and_names_its_models():
    engine = registry.load_engine(load_settings(engine="embedded"))
    assert engine.name == "embedded"
    assert [model.role for model in engine.models] == ["segmentation", "embedding", "recognition"]
    assert {model.state for model in engine.models} == {"ready"}
