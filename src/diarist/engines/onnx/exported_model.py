"""Models that ``diarist models export`` wrote: their location, their description, and the check of their files.

Each model is a folder with the ONNX graphs, their weights, and ``diarist.json``, which describes the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from diarist.engines.onnx.mel_features import FeatureSettings
from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.file_hashes import sha256_of
from diarist.settings import Settings
from diarist.types import ModelInfo, Seconds

Kind = Literal["ctc", "rnnt", "tdt", "speaker", "frame_vad"]
Quantization = Literal["int8"]

FOLDER = "exported"
"""The folder in MODEL_DIR."""

MANIFEST = "diarist.json"
LAYOUT = 1
"""The version of the layout; it is increased when older folders can no longer be used."""

ROLES: Mapping[Kind, str] = {
    "ctc": "recognition",
    "rnnt": "recognition",
    "tdt": "recognition",
    "speaker": "embedding",
    "frame_vad": "vad",
}


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an exported model."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """The description of an exported model in ``diarist.json``."""

    name: str
    kind: Kind
    source: str
    """The model that was exported: a name on the hub or in the catalog, or the name of a ``.nemo`` file."""

    licence: str
    languages: tuple[str, ...]
    """ISO 639-1 codes; empty where the languages are unknown, and for models that recognize no words."""

    frame_step: Seconds
    """The time from one frame of the output to the next; 0 for speaker models, which have no frames."""

    features: FeatureSettings
    quantization: Quantization | None
    files: tuple[ExportedFile, ...]
    diarist: str
    """The version of Diarist that wrote the folder."""

    layout: int = LAYOUT

    @property
    def info(self) -> ModelInfo:
        """The model as it is shown to users."""
        return ModelInfo(self.name, ROLES[self.kind], self.licence)


def folder_of(settings: Settings, reference: str) -> Path:
    """Return the folder of a model: one in MODEL_DIR by its name, or any folder by its path."""
    path = Path(reference).expanduser()
    if path.is_absolute() or os.sep in reference:
        return path
    return settings.model_dir / FOLDER / reference


def locate(settings: Settings, reference: str, kinds: Collection[Kind], setting: str) -> tuple[Path, ExportedModel]:
    """Return the folder of an exported model and its description, after comparing every file with its hash.

    Args:
        settings: The settings with the folder of models.
        reference: The name of the model, or the path of its folder.
        kinds: The kinds that are allowed.
        setting: The setting that names the model, for error messages.

    Raises:
        ModelUnavailable: The model does not exist, or has another kind.
        ModelCorrupt: A file is missing or is not the one that was exported, or the description cannot be read.
    """
    folder = folder_of(settings, reference)
    if not (folder / MANIFEST).is_file():
        raise ModelUnavailable(
            f"There is no exported model {reference!r} ({folder}). Run `diarist models export NAME_OR_PATH` where NeMo"
            f" is installed, copy the folder to this machine if needed, and set {setting} to its name or path."
        )
    exported = read(folder)
    if exported.kind not in kinds:
        raise ModelUnavailable(
            f"The exported model {reference!r} is a model for {ROLES[exported.kind]} ({exported.kind});"
            f" {setting} needs a model of the kind {' or '.join(kinds)}."
        )
    for file in exported.files:
        _check(folder / file.name, file)
    return folder, exported


def read(folder: Path) -> ExportedModel:
    """Read ``diarist.json`` in ``folder``; the other files are not checked.

    Raises:
        ModelCorrupt: It cannot be read, or has another layout.
    """
    path = folder / MANIFEST
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelCorrupt(
            f"{path} cannot be used ({error}). Export the model again with `diarist models export`."
        ) from error


def write(folder: Path, exported: ExportedModel) -> None:
    """Write ``diarist.json``."""
    (folder / MANIFEST).write_text(json.dumps(asdict(exported), indent=2) + "\n", encoding="utf-8")


def describe(folder: Path) -> tuple[ExportedFile, ...]:
    """Return all files in ``folder`` with their sizes and hashes, sorted by name; hidden files are left out."""
    return tuple(
        ExportedFile(path.name, path.stat().st_size, sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST and not path.name.startswith(".")
    )


def _parse(content: Mapping[str, Any]) -> ExportedModel:
    if content["layout"] != LAYOUT:
        raise ValueError(f"its layout is {content['layout']}, and this version of Diarist reads {LAYOUT}")
    if content["kind"] not in get_args(Kind):
        raise ValueError(f"there is no kind {content['kind']!r}")
    files = tuple(ExportedFile(**file) for file in content["files"])
    if any(Path(file.name).name != file.name for file in files):  # never read anything outside the folder
        raise ValueError("one of its files is not in its folder")
    parts = {
        "files": files,
        "languages": tuple(content["languages"]),
        "features": FeatureSettings(**content["features"]),
    }
    return ExportedModel(**{**content, **parts})


def _check(path: Path, file: ExportedFile) -> None:
    advice = "Export the model again with `diarist models export`, or copy the folder again."
    try:
        size_bytes = path.stat().st_size
        intact = size_bytes == file.size_bytes and sha256_of(path) == file.sha256
    except FileNotFoundError as error:
        raise ModelCorrupt(f"{path} is missing. {advice}") from error
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if not intact:
        raise ModelCorrupt(f"{path} is not the file that was exported (its size or SHA-256 differs). {advice}")
