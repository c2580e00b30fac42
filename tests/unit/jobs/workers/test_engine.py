from __future__ import annotations

import hashlib
import logging
import subprocess
import sys

import pytest

from diarist import models as models_package
from diarist.engines import registry
from diarist.errors import ModelUnavailable
from diarist.jobs.workers.engine import fetch_models, load_engine, uncataloged_models
from diarist.models import ModelStore
from diarist.models.catalog import Model, ModelFile


def tiny_model(name: str, content: bytes) -> Model:
    file = ModelFile("weights", len(content), hashlib.sha256(content).hexdigest(), ())
    return Model(name, "recognition", "MIT", "nobody", "nowhere", (file,))


@pytest.fixture
def store(tmp_path) -> ModelStore:
    models = {name: tiny_model(name, name.encode()) for name in ("first", "second")}
    for name in models:
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "weights").write_bytes(name.encode())
    return ModelStore(tmp_path / "models", tmp_path / "source", models=models)


def test_models_are_fetched_one_by_one_and_each_state_is_reported(store, caplog):
    caplog.set_level(logging.INFO)
    reported: list[list[str]] = []
    fetch_models(store, ("first", "second"), lambda models: reported.append([model.state for model in models]))
    assert reported == [["loading", "missing"], ["ready", "loading"], ["ready", "ready"]]
    assert store.locate("second").is_dir()
    assert caplog.text.count("Fetching model") == 2


def test_models_that_exist_are_not_fetched(store, caplog):
    fetch_models(store, ("first",), lambda _: None)
    caplog.set_level(logging.INFO)
    caplog.clear()
    fetch_models(store, ("first",), lambda _: None)
    assert "Fetching" not in caplog.text


def test_a_model_that_cannot_be_fetched_stops_the_loading(store, tmp_path):
    (tmp_path / "source" / "second" / "weights").unlink()
    with pytest.raises(ModelUnavailable, match="second"):
        fetch_models(store, ("first", "second"), lambda _: None)


DIAR_CONFIG = """
diarizer:
  vad: {model_path: /models/my_vad.nemo, parameters: {}}
  speaker_embeddings: {model_path: titanet_large, parameters: {}}
  asr: {model_path: nvidia/parakeet-tdt-0.6b-v3}
"""


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, set()),
        ({"diarizer": "sortformer"}, {("diarization", "nvidia/diar_streaming_sortformer_4spk-v2.1")}),
        ({"diarizer": "clustering"}, {("vad", "my_vad"), ("embedding", "titanet_large")}),
        (
            {"engine": "nemo"},
            {
                ("diarization", "nvidia/diar_streaming_sortformer_4spk-v2.1"), ("vad", "my_vad"),
                ("embedding", "titanet_large"), ("recognition", "nvidia/parakeet-tdt-0.6b-v3"),
            },
        ),
        ({"recognizer": "nemo", "nemo_asr_model": "/models/Mine.nemo"}, {("recognition", "Mine")}),
        (
            {"diarizer": "onnx", "recognizer": "onnx", "onnx_asr_model": "my-parakeet"},
            {
                ("vad", "frame_vad_multilingual_marblenet_v2.0"), ("embedding", "titanet_large"),
                ("recognition", "my-parakeet"),
            },
        ),
    ],
)  # fmt: skip
def test_uncataloged_models_are_named_before_they_are_loaded(make_settings, tmp_path, chosen, names):
    (tmp_path / "diar_infer_meeting.yaml").write_text(DIAR_CONFIG)
    models = uncataloged_models(make_settings(model_config_dir=tmp_path, **chosen))
    assert {(model.role, model.name) for model in models} == names
    assert {model.state for model in models} <= {"loading"}
    assert all(model.licence for model in models)


def test_models_of_an_unreadable_configuration_are_left_out(make_settings, tmp_path):
    (tmp_path / "diar_infer_meeting.yaml").write_text("diarizer: [")
    settings = make_settings(model_config_dir=tmp_path, diarizer="clustering", recognizer="nemo")
    assert uncataloged_models(settings) == ()


def test_all_models_are_reported_while_the_engine_loads(make_settings, tmp_path, monkeypatch, store):
    (tmp_path / "diar_infer_meeting.yaml").write_text(DIAR_CONFIG)
    reported: list[dict[str, str]] = []
    monkeypatch.setattr(registry, "load_engine", lambda settings: settings)
    monkeypatch.setattr(models_package, "required", lambda _: ("first",))
    monkeypatch.setattr(ModelStore, "of", lambda _: store)
    settings = make_settings(model_config_dir=tmp_path, recognizer="nemo")
    load_engine(settings, lambda models: reported.append({model.name: model.state for model in models}))
    parakeet = {"nvidia/parakeet-tdt-0.6b-v3": "loading"}
    assert reported == [{"first": "loading", **parakeet}, {"first": "ready", **parakeet}]


def test_naming_models_imports_no_heavy_library():
    program = (
        "import sys; from diarist.jobs.workers.engine import uncataloged_models; from diarist.settings import Settings;"
        "uncataloged_models(Settings(_env_file=None, engine='nemo'));"
        "print(*sorted({'torch', 'nemo', 'omegaconf', 'onnxruntime'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == []
