"""The files that Diarist computes for a published TDT model, and that damaged ones are never used."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_asr.preprocessors
import pytest

from diarist import __version__
from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore, exported_model, load_catalog, tdt_description
from diarist.models.catalog import Model
from diarist.models.integrity import sha256_of
from diarist.models.mel_filters import hann_window, slaney_filters
from support import published_tdt

NAME = "parakeet-tdt-0.6b-v3"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(published_tdt.repository())


@pytest.fixture
def model(files: dict[str, bytes]) -> Model:
    return published_tdt.with_these_files(load_catalog()[NAME], files)


@pytest.fixture
def store(tmp_path: Path, model: Model, files: dict[str, bytes]) -> ModelStore:
    """A store with the complete model."""
    for file in model.files:
        path = tmp_path / "source" / NAME / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[file.name])
    store = ModelStore(tmp_path / "models", tmp_path / "source", models={NAME: model})
    store.pull(NAME, offline=True)
    return store


@pytest.mark.parametrize("mels", [80, 128])
def test_the_filters_are_those_of_onnx_asr(mels: int) -> None:
    with np.load(importlib.resources.files(onnx_asr.preprocessors) / "data" / "fbanks.npz") as tables:  # type: ignore[arg-type]
        expected = tables[f"nemo{mels}"].T
    found = slaney_filters(tdt_description.FEATURES[f"nemo-{mels}"])
    assert found.shape == (mels, 257)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-7


def test_the_window_is_symmetric() -> None:
    window = hann_window(tdt_description.FEATURES["nemo-128"])
    assert np.array_equal(window, window[::-1])
    assert (window[0], window.max()) == (0.0, pytest.approx(1.0, abs=1e-4))


def test_a_pulled_model_has_a_description_like_an_exported_one(store: ModelStore, model: Model) -> None:
    folder = store.root / NAME
    found = exported_model.read(folder)
    assert (found.name, found.kind, found.quantization, found.frame_step) == (NAME, "tdt", "int8", 0.08)
    assert (found.source, found.licence, found.diarist) == (model.hub, "CC-BY-4.0", __version__)
    assert (found.features.mels, found.languages) == (128, model.languages)
    for file in found.files:
        path = folder / file.name
        assert (path.stat().st_size, sha256_of(path)) == (file.size_bytes, file.sha256)
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {file.name for file in found.files} | {"diarist.json"}
    assert "features.npz" in visible


def with_other_arrays(folder: Path) -> None:
    """Write other filters, and the description that belongs to them."""
    np.savez(folder / "features.npz", window=np.ones(400, np.float32), filters=np.ones((128, 257), np.float32))
    found = exported_model.read(folder)
    path = folder / "features.npz"
    changed = tuple(
        dataclasses.replace(file, size_bytes=path.stat().st_size, sha256=sha256_of(path))
        if file.name == path.name
        else file
        for file in found.files
    )
    exported_model.write(folder, dataclasses.replace(found, files=changed))


def with_change(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "diarist.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def flipped(folder: Path) -> None:
    path = folder / "features.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no features": lambda folder: (folder / "features.npz").unlink(),
    "no description": lambda folder: (folder / "diarist.json").unlink(),
    "short features": lambda folder: (folder / "features.npz").write_bytes(b"PK\x03\x04"),
    "a flipped bit": flipped,
    "an empty description": lambda folder: (folder / "diarist.json").write_bytes(b""),
    "other arrays": with_other_arrays,
    "another frame step": with_change(frame_step=0.04),
    "another quantization": with_change(quantization=None),
    "another layout": with_change(layout=99),
    "a file elsewhere": with_change(files=[{"name": "../other", "size_bytes": 1, "sha256": ""}]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_by_verify_and_computed_again_by_use(
    damage: Callable[[Path], object], store: ModelStore
) -> None:
    folder = store.root / NAME
    intact = {name: (folder / name).read_bytes() for name in ("features.npz", "diarist.json")}
    damage(folder)
    with pytest.raises(ModelUnavailable, match=f"description of model {NAME}.*diarist models pull"):
        store.verify(NAME)
    assert store.locate(NAME) == folder
    assert {name: (folder / name).read_bytes() for name in intact} == intact
    damage(folder)
    assert store.pull(NAME, offline=True) == folder
    assert store.verify(NAME) == folder
    assert {name: (folder / name).read_bytes() for name in intact} == intact


def test_intact_files_are_not_written_again(store: ModelStore) -> None:
    paths = [store.root / NAME / name for name in ("features.npz", "diarist.json")]
    before = [path.stat().st_mtime_ns for path in paths]
    store.locate(NAME)
    store.pull(NAME, offline=True)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_the_description_of_another_version_of_diarist_is_kept(store: ModelStore) -> None:
    with_change(diarist="0.0.1")(store.root / NAME)
    store.locate(NAME)
    assert exported_model.read(store.root / NAME).diarist == "0.0.1"


def test_nothing_is_computed_for_a_damaged_model(store: ModelStore) -> None:
    (store.root / NAME / "diarist.json").unlink()
    (store.root / NAME / "vocab.txt").write_bytes(b"other")
    with pytest.raises(ModelCorrupt, match=r"vocab\.txt"):
        store.locate(NAME)
    assert not (store.root / NAME / "diarist.json").exists()
