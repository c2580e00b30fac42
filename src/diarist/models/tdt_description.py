"""The files that Diarist computes for a published TDT model, so that it can be used like an exported one.

The publisher's folder has the graphs, the vocabulary and ``config.json``. What it lacks are the window and the mel
filters (``features.npz``) and the description (``diarist.json``). Both depend only on the entry in the catalog.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from diarist import __version__
from diarist.errors import ModelCorrupt
from diarist.models import exported_model
from diarist.models.catalog import Model
from diarist.models.exported_model import ExportedFile, ExportedModel
from diarist.models.feature_settings import ARRAYS, FeatureSettings
from diarist.models.file_hashes import sha256_of
from diarist.models.integrity import write_atomically
from diarist.models.mel_filters import Floats, hann_window, slaney_filters


def _nemo_features(mels: int) -> FeatureSettings:
    return FeatureSettings(16_000, mels, 512, 400, 160, 0.97, 2.0, "add", 2.0**-24, "per_feature")


FEATURES: Mapping[str, FeatureSettings] = {"nemo-80": _nemo_features(80), "nemo-128": _nemo_features(128)}
"""The input features by the names that the catalog uses, with the defaults of NeMo's preprocessor."""

MAX_DIFFERENCE = 1e-6
"""The largest accepted difference of the arrays, which another machine may have computed. The values are below 1."""


def is_complete(folder: Path, model: Model) -> bool:
    """Return whether ``folder`` has both files, and they are those that ``write`` writes."""
    try:
        found = exported_model.read(folder)
        path = folder / ARRAYS
        features = ExportedFile(ARRAYS, path.stat().st_size, sha256_of(path))
        if replace(found, diarist=__version__) != _description(model, features):
            return False
        with np.load(path) as arrays:
            return all(
                arrays[name].shape == expected.shape and np.allclose(arrays[name], expected, 0.0, MAX_DIFFERENCE)
                for name, expected in _arrays(model).items()
            )
    except (ModelCorrupt, OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def write(folder: Path, model: Model) -> None:
    """Write both files. The caller must have checked the hashes of the published files.

    Raises:
        OSError: If the folder cannot be written.
    """
    stream = io.BytesIO()
    arrays = _arrays(model)
    np.savez(stream, window=arrays["window"], filters=arrays["filters"])
    content = stream.getvalue()
    features = ExportedFile(ARRAYS, len(content), hashlib.sha256(content).hexdigest())
    write_atomically(folder / ARRAYS, content)
    write_atomically(folder / exported_model.MANIFEST, exported_model.dump(_description(model, features)))


def _settings(model: Model) -> FeatureSettings:
    if model.features is None:
        raise ValueError(f"{model.name} has no features")
    return FEATURES[model.features]


def _arrays(model: Model) -> dict[str, Floats]:
    settings = _settings(model)
    return {"window": hann_window(settings), "filters": slaney_filters(settings)}


def _description(model: Model, features: ExportedFile) -> ExportedModel:
    published = (ExportedFile(file.name, file.size_bytes, file.sha256) for file in model.files)
    return ExportedModel(
        name=model.name,
        kind="tdt",
        source=model.hub or model.name,
        licence=model.licence,
        languages=model.languages,
        frame_step=model.frame_step,
        features=_settings(model),
        quantization=model.quantization,
        files=tuple(sorted((*published, features), key=lambda file: file.name)),
        diarist=__version__,
    )
