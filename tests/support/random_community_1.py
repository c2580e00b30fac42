"""Models with the names, the shapes and the formats of community-1, and random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from diarist.models import ModelStore, load_catalog
from diarist.models.catalog import Model
from diarist.models.selection import DIARIZER_MODELS
from support.random_plda import plda_parameters
from unit.models import weights
from unit.models.fake_files import write_checkpoint

NAMES = DIARIZER_MODELS["community-1"]


def write_source(folder: Path, *, channels: int = 32, segmentation: weights.Tensors | None = None) -> dict[str, Model]:
    """Write the files as ``<model>/<file>``, and return the catalog with their sizes and hashes.

    Args:
        folder: The folder, which can serve as MODEL_SOURCE_DIR.
        channels: The number of channels of the first layer of the embedding network; pyannote's has 32.
        segmentation: The tensors of the segmentation; by default random ones.
    """
    models = {name: load_catalog()[name] for name in NAMES}
    segmentation_file, embedding_file = (folder / name / models[name].files[0].name for name in NAMES[:2])
    write_checkpoint(segmentation_file, {"state_dict": segmentation or weights.segmentation_weights()})
    write_checkpoint(embedding_file, {"state_dict": weights.resnet34_weights(channels=channels)})
    parameters = plda_parameters()
    plda = folder / NAMES[2] / "plda"
    plda.mkdir(parents=True)
    np.savez(
        plda / "xvec_transform.npz",
        allow_pickle=False,
        **{name: parameters[name] for name in ("mean1", "mean2", "lda")},
    )
    np.savez(plda / "plda.npz", allow_pickle=False, **{name: parameters[name] for name in ("mu", "tr", "psi")})
    return {name: _with_own_files(model, folder / name) for name, model in models.items()}


def _with_own_files(model: Model, folder: Path) -> Model:
    contents = {file.name: (folder / file.name).read_bytes() for file in model.files}
    files = (
        replace(file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for file, content in zip(model.files, contents.values(), strict=True)
    )
    return replace(model, files=tuple(files), hub=None)


def pulled_store(folder: Path, models: Mapping[str, Model], source: Path) -> ModelStore:
    """Return a store that has these models."""
    store = ModelStore(folder, source, models=models)
    for name in models:
        store.pull(name, offline=True)
    return store
