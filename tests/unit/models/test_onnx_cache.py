"""The graphs that a store builds from checkpoints: kept, checked, built again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore, load_catalog, onnx_cache
from diarist.models.catalog import Model, ModelFile
from diarist.models.file_hashes import sha256_of
from unit.models import weights
from unit.models.fake_files import write_checkpoint


def model_of(checkpoint: Path) -> Model:
    file = ModelFile(checkpoint.name, checkpoint.stat().st_size, sha256_of(checkpoint), ())
    return replace(load_catalog()["segmentation-3.0"], files=(file,), hub=None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_checkpoint(folder / "segmentation-3.0" / "voices.bin", {"state_dict": weights.segmentation_weights()})
    return folder


@pytest.fixture
def store(tmp_path: Path, source: Path) -> ModelStore:
    model = model_of(source / "segmentation-3.0" / "voices.bin")
    store = ModelStore(tmp_path / "store", source, models={model.name: model})
    store.pull(model.name, offline=True)
    return store


def fresh(store: ModelStore) -> ModelStore:
    """A store as another process would have it: nothing checked yet, and no source."""
    return ModelStore(store.root, models=store.models)


def test_the_graph_is_what_is_located(store: ModelStore) -> None:
    path = store.locate("segmentation-3.0")
    assert path == store.root / "segmentation-3.0" / "model.onnx"
    assert [tensor.name for tensor in onnx.load(path).graph.input] == ["samples"]
    visible = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    assert visible == ["model.json", "model.onnx", "voices.bin"]


@pytest.mark.parametrize(
    "damage",
    [lambda path: os.truncate(path, 999), lambda path: path.write_bytes(bytes(path.stat().st_size))],
    ids=["truncated", "altered"],
)
def test_a_damaged_graph_is_refused_by_name_and_mended_without_a_source(
    store: ModelStore, damage: Callable[[Path], object]
) -> None:
    path = store.locate("segmentation-3.0")
    whole = path.read_bytes()
    damage(path)
    for look in (store.locate, fresh(store).locate, store.verify):
        with pytest.raises(ModelCorrupt, match=r"model\.onnx.*diarist models pull"):
            look("segmentation-3.0")
    fresh(store).pull("segmentation-3.0", offline=True)
    assert path.read_bytes() == whole


def test_the_graph_of_an_older_builder_is_built_again(store: ModelStore) -> None:
    manifest = store.root / "segmentation-3.0" / "model.json"
    made = json.loads(manifest.read_text())
    assert made["builder"] == onnx_cache.BUILDER_VERSION
    whole = store.locate("segmentation-3.0").read_bytes()
    store.locate("segmentation-3.0").write_bytes(b"what an older builder made")
    manifest.write_text(json.dumps({**made, "builder": onnx_cache.BUILDER_VERSION - 1}))
    assert fresh(store).locate("segmentation-3.0").read_bytes() == whole
    assert json.loads(manifest.read_text()) == made


def test_the_graph_of_another_checkpoint_is_built_again(store: ModelStore, tmp_path: Path) -> None:
    before = store.locate("segmentation-3.0").read_bytes()
    folder = tmp_path / "new" / "segmentation-3.0"
    model = model_of(write_checkpoint(folder / "voices.bin", weights.segmentation_weights(seed=9)))
    changed = ModelStore(store.root, folder.parent, models={model.name: model})
    with pytest.raises(ModelCorrupt, match=r"voices\.bin"):
        changed.locate(model.name)
    assert changed.pull(model.name, offline=True).read_bytes() != before


@pytest.mark.parametrize("gone", ["model.onnx", "model.json"])
def test_a_graph_that_is_gone_is_built_again(store: ModelStore, gone: str) -> None:
    whole = store.locate("segmentation-3.0").read_bytes()
    (store.root / "segmentation-3.0" / gone).unlink()
    with pytest.raises(ModelUnavailable, match="not built"):
        fresh(store).verify("segmentation-3.0")
    assert fresh(store).locate("segmentation-3.0").read_bytes() == whole


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"builder": 1}', "\udcff"])
def test_a_manifest_that_is_no_manifest_counts_as_none(store: ModelStore, content: str) -> None:
    (store.root / "segmentation-3.0" / "model.json").write_bytes(content.encode(errors="surrogateescape"))
    assert fresh(store).locate("segmentation-3.0").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "segmentation-3.0"
    tensors = weights.segmentation_weights()
    del tensors["classifier.bias"]
    model = model_of(write_checkpoint(folder / "voices.bin", tensors))
    store = ModelStore(tmp_path / "store", folder.parent, models={model.name: model})
    with pytest.raises(ModelCorrupt, match=r"voices\.bin.*classifier\.bias"):
        store.pull(model.name, offline=True)
    assert not (store.root / model.name / "model.onnx").exists()
