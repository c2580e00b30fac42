"""Tests of which engine is loaded, and of the errors when it cannot be loaded."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import get_args

import pytest

from diarist.engines import registry
from diarist.engines.device import Machine
from diarist.errors import ConfigurationError, EngineUnavailable, ModelUnavailable
from diarist.models import select_recognizer
from diarist.protocols import Loaded
from diarist.settings import Settings, load_settings
from diarist.types import ModelInfo


def choices(setting: str) -> set[str]:
    literal, _none = get_args(Settings.model_fields[setting].annotation)
    return set(get_args(literal))


def test_everything_that_can_be_set_has_a_loader():
    assert choices("diarizer") == set(registry.DIARIZERS)
    assert choices("recognizer") == set(registry.RECOGNIZERS)
    for engine in get_args(Settings.model_fields["engine"].annotation):
        settings = load_settings(engine=engine)
        assert settings.diarizer_name in registry.DIARIZERS
        assert select_recognizer(settings).name in registry.RECOGNIZERS


@pytest.mark.parametrize(
    "import_path",
    [
        pytest.param(path, marks=pytest.mark.nemo if ".nemo." in path else ())
        for path in (*registry.DIARIZERS.values(), *registry.RECOGNIZERS.values())
    ],
)
def test_every_import_path_leads_to_a_function_that_takes_settings(request, import_path):
    if ".nemo." in import_path:
        request.getfixturevalue("nemo_models")
    assert pkgutil.resolve_name(import_path).__annotations__["settings"] == "Settings"


@pytest.fixture
def register(monkeypatch) -> Callable[..., None]:
    """Replace a table of the registry by one with these loaders."""

    def replace(table: str, **loaders: Callable[[Settings], object]) -> None:
        module = f"loaders_of_{table.lower()}"
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**loaders))
        monkeypatch.setattr(registry, table, {name: f"{module}:{name}" for name in loaders})

    return replace


def loader(name, role, device="cpu"):
    return lambda _settings: Loaded(name, (ModelInfo(f"model of {name}", role, "MIT"),), device)


@pytest.mark.parametrize(
    ("chosen", "diarizer", "recognizer"),
    [
        ({}, "embedded", "whisper"),
        ({"engine": "nemo"}, "auto", "nemo"),
        ({"recognizer": "nemo"}, "embedded", "nemo"),
        ({"engine": "nemo", "recognizer": "whisper", "diarizer": "sortformer"}, "sortformer", "whisper"),
    ],
)
def test_diarizer_and_recognizer_are_chosen_independently(register, chosen, diarizer, recognizer):
    for table, role in (("DIARIZERS", "diarization"), ("RECOGNIZERS", "recognition")):
        register(table, **{name: loader(name, role) for name in getattr(registry, table)})
    engine = registry.load_engine(load_settings(**chosen))
    assert (engine.diarizer, engine.recognizer) == (diarizer, recognizer)
    assert [model.name for model in engine.models] == [f"model of {diarizer}", f"model of {recognizer}"]
    assert engine.name == chosen.get("engine", "embedded")


def test_the_device_is_the_gpu_where_either_has_one(register):
    register("DIARIZERS", embedded=loader("d", "diarization"))
    register("RECOGNIZERS", nemo=loader("r", "recognition", "cuda:0"))
    assert registry.load_engine(load_settings(recognizer="nemo")).device == "cuda:0"


def test_what_keeps_parts_from_a_gpu_is_logged_once_and_kept(register, caplog):
    def load(_settings):
        return Loaded("part", (), "cpu", "Install the extra `gpu`.")

    register("DIARIZERS", embedded=load)
    register("RECOGNIZERS", whisper=load)
    assert registry.load_engine(load_settings()).notices == ("Install the extra `gpu`.",)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Install the extra `gpu`."
    ]


@pytest.mark.parametrize(
    ("module", "advice"), [("onnxruntime", "pip install diarist"), ("torch", r"pip install 'diarist\[nemo\]'")]
)
def test_a_missing_library_is_named_with_what_to_do(register, module, advice):
    def load(_settings):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    register("DIARIZERS", embedded=load)
    with pytest.raises(EngineUnavailable, match=rf"diarizer embedded.*{module}.*{advice}") as raised:
        registry.load_engine(load_settings())
    assert isinstance(raised.value.__cause__, ImportError)


def test_a_library_that_is_missing_on_import_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(registry, "DIARIZERS", {"embedded": "no_such_library.diarizer:load"})
    with pytest.raises(EngineUnavailable, match=r"diarizer embedded.*no_such_library.*pip install diarist"):
        registry.load_engine(load_settings())


def test_missing_models_are_named(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"diarist models pull"):
        registry.load_engine(load_settings(model_dir=tmp_path))


def test_the_registry_itself_loads_no_library():
    program = (
        "import sys, diarist.engines.registry; "
        "print(*{'onnxruntime', 'faster_whisper', 'kaldi_native_fbank', 'torch', 'nemo'} & sys.modules.keys())"
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


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
@pytest.mark.parametrize(
    ("load", "name"), [(registry.load_diarizer, "embedded"), (registry.load_recognizer, "whisper")]
)
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_of_either_part(monkeypatch, load, name):
    monkeypatch.setattr("diarist.engines.device.describe_machine", lambda _setting: Machine())
    with pytest.raises(ConfigurationError, match=r"DEVICE=cuda:1: NVIDIA's driver reports 0 GPUs here"):
        load(name, load_settings(device="cuda:1"))
