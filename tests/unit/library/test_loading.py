from __future__ import annotations

import hashlib
import logging
import subprocess
import sys

import pytest

from diarist.engines import registry
from diarist.errors import Cancelled, ModelUnavailable
from diarist.jobs.workers import engine
from diarist.library import loading
from diarist.library.loading import fetch_models, load_diarizer, load_engine, uncataloged_models
from diarist.models import ModelStore
from diarist.models.catalog import Model, ModelFile
from diarist.settings import load_settings


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
def test_uncataloged_models_are_named_before_they_are_loaded(tmp_path, chosen, names):
    (tmp_path / "diar_infer_meeting.yaml").write_text(DIAR_CONFIG)
    models = uncataloged_models(load_settings(model_config_dir=tmp_path, **chosen))
    assert {(model.role, model.name) for model in models} == names
    assert {model.state for model in models} <= {"loading"}
    assert all(model.licence for model in models)


def test_models_of_an_unreadable_configuration_are_left_out(tmp_path):
    (tmp_path / "diar_infer_meeting.yaml").write_text("diarizer: [")
    settings = load_settings(model_config_dir=tmp_path, diarizer="clustering", recognizer="nemo")
    assert uncataloged_models(settings) == ()


def test_all_models_are_reported_while_the_engine_loads(tmp_path, monkeypatch, store):
    (tmp_path / "diar_infer_meeting.yaml").write_text(DIAR_CONFIG)
    reported: list[dict[str, str]] = []
    monkeypatch.setattr(registry, "load_engine", lambda settings: settings)
    monkeypatch.setattr(loading, "required", lambda _: ("first",))
    monkeypatch.setattr(ModelStore, "of", lambda _: store)
    settings = load_settings(model_config_dir=tmp_path, recognizer="nemo")
    engine.load_engine(settings, lambda models: reported.append({model.name: model.state for model in models}))
    parakeet = {"nvidia/parakeet-tdt-0.6b-v3": "loading"}
    assert reported == [{"first": "loading", **parakeet}, {"first": "ready", **parakeet}]


def test_naming_models_imports_no_heavy_library():
    program = (
        "import sys; from diarist.library.loading import uncataloged_models; from diarist.settings import Settings;"
        "uncataloged_models(Settings(_env_file=None, engine='nemo'));"
        "print(*sorted({'torch', 'nemo', 'omegaconf', 'onnxruntime'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == []


def test_the_progress_of_a_download_is_passed_on_and_may_stop_it(store, monkeypatch):
    received: list[tuple[str, int, int]] = []
    monkeypatch.setattr(store, "pull", lambda name, progress, *, offline: progress(name, 3, 5))
    fetch_models(store, ("first",), lambda _: None, lambda *progress: received.append(progress))
    assert received == [("first", 3, 5)]

    def stop(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fetch_models(store, ("second",), lambda _: None, stop)


def test_nothing_is_fetched_over_the_network_if_that_is_forbidden(store, monkeypatch):
    monkeypatch.setattr(loading, "required", lambda _: ("second",))
    monkeypatch.setattr(ModelStore, "of", lambda _: store)
    forbidden: list[bool] = []
    monkeypatch.setattr(store, "pull", lambda _name, _progress, *, offline: forbidden.append(offline))
    monkeypatch.setattr(registry, "load_engine", lambda settings: settings)
    for offline in (True, False):
        load_engine(load_settings(), offline=offline)
    assert forbidden == [True, False]


def test_a_diarizer_alone_needs_no_recognizer(store, monkeypatch):
    monkeypatch.setattr(loading, "required_by_diarizer", lambda _: ("first",))
    monkeypatch.setattr(ModelStore, "of", lambda _: store)
    monkeypatch.setattr(registry, "load_diarizer", lambda name, _: name)
    assert load_diarizer(load_settings()) == "embedded"
    assert store.state("first") == "ready"
    assert store.state("second") == "missing"
