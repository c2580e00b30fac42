"""The models of community-1 in a store: nested names, graphs, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore, load_catalog, required
from diarist.models.catalog import Model
from diarist.settings import load_settings
from support.random_community_1 import NAMES, pulled_store, write_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("community-1") / "source"


@pytest.fixture(scope="module")
def models(source: Path) -> Mapping[str, Model]:
    return write_source(source, channels=2)


@pytest.fixture
def store(tmp_path: Path, source: Path, models: Mapping[str, Model]) -> ModelStore:
    return pulled_store(tmp_path / "store", models, source)


def test_the_diarizer_needs_them_and_they_come_from_one_repository() -> None:
    assert required(load_settings(diarizer="community-1"))[:3] == NAMES
    entries = [load_catalog()[name] for name in NAMES]
    assert {model.hub for model in entries} == {"pyannote-community/speaker-diarization-community-1"}
    assert {model.revision for model in entries} == {"8a527374977391da736e0daaef26855d949d9685"}
    assert [model.graph for model in entries] == ["segmentation", "resnet34", None]
    assert not any(model.tested for model in entries)


def test_random_files_of_the_real_shapes_have_the_sizes_of_the_published_ones(tmp_path: Path) -> None:
    for name, model in write_source(tmp_path).items():
        for own, published in zip(model.files, load_catalog()[name].files, strict=True):
            assert own.size_bytes == pytest.approx(published.size_bytes, rel=0 if name == NAMES[2] else 0.002)


def test_files_keep_the_folders_in_their_names(store: ModelStore) -> None:
    segmentation, embedding, plda = (store.locate(name) for name in NAMES)
    assert segmentation == store.root / NAMES[0] / "model.onnx"
    assert [value.name for value in onnx.load(embedding).graph.input] == ["features", "weights"]
    assert plda == store.root / NAMES[2]
    assert sorted(path.name for path in (plda / "plda").glob("[!.]*")) == ["plda.npz", "xvec_transform.npz"]
    assert (store.root / NAMES[1] / "embedding" / "pytorch_model.bin").is_file()
    assert {store.state(name) for name in NAMES} == {"ready"}


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_by_name_and_mended(
    store: ModelStore, source: Path, models: Mapping[str, Model], name: str
) -> None:
    file = models[name].files[0].name
    (store.root / name / file).write_bytes(b"damaged")
    with pytest.raises(ModelCorrupt, match=file):
        store.verify(name)
    fresh = ModelStore(store.root, source, models=models)
    fresh.pull(name, offline=True)
    fresh.verify(name)


def test_one_missing_file_of_the_plda_makes_it_missing(store: ModelStore) -> None:
    (store.root / NAMES[2] / "plda" / "plda.npz").unlink()
    assert store.state(NAMES[2]) == "missing"
    with pytest.raises(ModelUnavailable, match=r"plda\.npz.*diarist models pull"):
        store.locate(NAMES[2])
