"""Tests that exported models are used only if they are intact and of the right kind."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from diarist.engines.onnx import diarizer, recognizer
from diarist.engines.onnx.model_lookup import locate
from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models import exported_model
from diarist.models.exported_model import ExportedModel
from diarist.models.feature_settings import FeatureSettings
from diarist.settings import load_settings

FEATURES = FeatureSettings(16_000, 80, 512, 400, 160, 0.97, 2.0, "add", 2.0**-24, "per_feature")


@pytest.fixture
def settings(tmp_path):
    return load_settings(model_dir=tmp_path, recognizer="onnx", onnx_asr_model="mine")


@pytest.fixture
def folder(tmp_path):
    """A model whose files are intact, but have no meaning."""
    folder = tmp_path / "exported" / "mine"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "vocab.txt").write_bytes(b"a 0\n<blk> 1\n")
    files = exported_model.describe(folder)
    exported_model.write(
        folder, ExportedModel("mine", "ctc", "x.nemo", "CC-BY-4.0", ("en", "de"), 0.08, FEATURES, None, files, "1.0")
    )
    return folder


def located(settings, reference="mine", kinds=("ctc",)):
    return locate(settings, reference, kinds, "ONNX_ASR_MODEL")


def test_a_description_comes_back_as_it_was_written(folder, settings):
    at, found = located(settings)
    assert at == folder
    assert found == exported_model.read(folder)
    assert (found.name, found.languages, found.features) == ("mine", ("en", "de"), FEATURES)
    assert [file.name for file in found.files] == ["model.onnx", "vocab.txt"]
    assert (found.info.role, found.info.licence) == ("recognition", "CC-BY-4.0")


def test_a_path_means_the_folder_itself(folder, settings, tmp_path):
    moved = folder.replace(tmp_path / "elsewhere")
    assert located(settings, str(moved))[0] == moved


def test_a_model_that_is_not_there_says_how_to_get_one(settings):
    with pytest.raises(ModelUnavailable, match=r"diarist models export.*ONNX_ASR_MODEL"):
        located(settings)
    with pytest.raises(ModelUnavailable, match="diarist models export"):
        recognizer.load(settings)
    with pytest.raises(ModelUnavailable, match="diarist models export"):
        diarizer.load(settings)


def test_a_model_of_another_kind_is_refused(folder, settings):
    with pytest.raises(ModelUnavailable, match=r"is a model for recognition \(ctc\).*speaker"):
        located(settings, kinds=("speaker",))


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing"])
def test_a_damaged_file_is_refused(damage, folder, settings):
    path = folder / "model.onnx"
    path.unlink() if damage == "missing" else path.write_bytes({"changed": b"grapH", "shorter": b"g"}[damage])
    with pytest.raises(ModelCorrupt, match=rf"{re.escape(str(path))}.*diarist models export"):
        located(settings)


def test_files_are_read_once_until_they_change_unless_they_shall_be_read(folder, settings, monkeypatch):
    read = []
    hash_file = hashlib.file_digest

    def count(stream, name):
        read.append(Path(stream.name).name)
        return hash_file(stream, name)

    located(settings)
    monkeypatch.setattr(hashlib, "file_digest", count)
    located(settings)
    assert read == []
    locate(settings, "mine", ("ctc",), "ONNX_ASR_MODEL", always_read=True)
    assert read == ["model.onnx", "vocab.txt"]
    (folder / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(ModelCorrupt, match=r"model\.onnx"):
        located(settings)


@pytest.mark.parametrize(
    "change",
    [
        {"layout": 99},
        {"kind": "canary"},
        {"features": {}},
        {"files": [{"name": "../../secret", "size_bytes": 1, "sha256": ""}]},
        {"surprise": 1},
    ],
)
def test_a_description_that_cannot_be_right_is_refused(change, folder, settings):
    content = asdict(exported_model.read(folder)) | change
    (folder / "diarist.json").write_text(json.dumps(content))
    with pytest.raises(ModelCorrupt, match=r"diarist\.json cannot be used"):
        located(settings)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null"])
def test_a_description_that_is_none_is_refused(content, folder, settings):
    (folder / "diarist.json").write_bytes(content)
    with pytest.raises(ModelCorrupt, match="Export the model again"):
        located(settings)


def test_whole_files_that_are_no_model_are_refused_with_what_to_do(folder, settings):
    import numpy as np

    np.savez(folder / "features.npz", window=np.ones(400, np.float32), filters=np.ones((80, 257), np.float32))
    (folder / "config.json").write_text("{}")
    exported_model.write(folder, replace(exported_model.read(folder), files=exported_model.describe(folder)))
    with pytest.raises(ModelCorrupt, match=r"cannot be opened.*export it again"):
        recognizer.load(settings)
    (folder / "features.npz").write_bytes(b"no arrays")
    exported_model.write(folder, replace(exported_model.read(folder), files=exported_model.describe(folder)))
    with pytest.raises(ModelCorrupt, match=r"features\.npz cannot be used"):
        recognizer.load(settings)
