from __future__ import annotations

import hashlib
import logging

import pytest

from diarist.errors import ModelUnavailable
from diarist.jobs.loading import pull_models
from diarist.models import ModelStore
from diarist.models.catalogue import Model, ModelFile


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


def test_models_are_fetched_one_by_one_and_each_state_is_told(store, caplog):
    caplog.set_level(logging.INFO)
    told: list[list[str]] = []
    pull_models(store, ("first", "second"), lambda models: told.append([model.state for model in models]))
    assert told == [["loading", "missing"], ["ready", "loading"], ["ready", "ready"]]
    assert store.locate("second").is_dir()
    assert caplog.text.count("Fetching model") == 2


def test_models_that_are_there_are_not_fetched(store, caplog):
    pull_models(store, ("first",), lambda _: None)
    caplog.set_level(logging.INFO)
    caplog.clear()
    pull_models(store, ("first",), lambda _: None)
    assert "Fetching" not in caplog.text


def test_a_model_that_cannot_be_had_stops_the_loading(store, tmp_path):
    (tmp_path / "source" / "second" / "weights").unlink()
    with pytest.raises(ModelUnavailable, match="second"):
        pull_models(store, ("first", "second"), lambda _: None)
