"""Models that ``diarist models export`` wrote: where they lie, what they are, whether they are whole.

A folder each: the ONNX graphs with their weights, and ``diarist.json``, which says what they are and how to use them.
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
from diarist.models.integrity import sha256_of
from diarist.settings import Settings
from diarist.types import ModelInfo, Seconds

Kind = Literal["ctc", "rnnt", "tdt", "speaker", "frame_vad"]
Quantization = Literal["int8"]

FOLDER = "exported"
"""In MODEL_DIR."""

MANIFEST = "diarist.json"
LAYOUT = 1
"""Counted up whenever a folder of before can no longer be used."""

ROLES: Mapping[Kind, str] = {
    "ctc": "recognition",
    "rnnt": "recognition",
    "tdt": "recognition",
    "speaker": "embedding",
    "frame_vad": "vad",
}


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of the model."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What ``diarist.json`` says."""

    name: str
    kind: Kind
    source: str
    """What the user exported: a name on the hub or in the catalogue, or the name of a ``.nemo`` file."""

    licence: str
    languages: tuple[str, ...]
    """ISO 639-1; empty where it is not known, and for models that know no words."""

    frame_step: Seconds
    """From one frame of the output to the next; 0 for speaker models, which have none."""

    features: FeatureSettings
    quantization: Quantization | None
    files: tuple[ExportedFile, ...]
    diarist: str
    """The version of Diarist that wrote it."""

    layout: int = LAYOUT

    @property
    def info(self) -> ModelInfo:
        """As shown to users."""
        return ModelInfo(self.name, ROLES[self.kind], self.licence)


def folder_of(settings: Settings, reference: str) -> Path:
    """The folder that is meant: one in MODEL_DIR by its name, or any by its path."""
    path = Path(reference).expanduser()
    if path.is_absolute() or os.sep in reference:
        return path
    return settings.model_dir / FOLDER / reference


def locate(settings: Settings, reference: str, kinds: Collection[Kind], setting: str) -> tuple[Path, Exported]:
    """The folder of an exported model and what it says of itself, with every file compared to its hash.

    Args:
        settings: where models are kept.
        reference: what the user calls it: a name, or the path of its folder.
        kinds: what it may be.
        setting: where the user said so, for messages.

    Raises:
        ModelUnavailable: it is not there, or is not of these kinds.
        ModelCorrupt: a file is missing or not the one that was exported, or the description cannot be read.
    """
    folder = folder_of(settings, reference)
    if not (folder / MANIFEST).is_file():
        raise ModelUnavailable(
            f"There is no exported model {reference!r} ({folder}). Where NeMo is installed run `diarist models export"
            f" NAME_OR_PATH`, copy the folder here if that is another machine, and let {setting} name it."
        )
    exported = read(folder)
    if exported.kind not in kinds:
        raise ModelUnavailable(
            f"The exported model {reference!r} is a model for {ROLES[exported.kind]} ({exported.kind});"
            f" {setting} needs one of the kind {' or '.join(kinds)}."
        )
    for file in exported.files:
        _check(folder / file.name, file)
    return folder, exported


def read(folder: Path) -> Exported:
    """What ``diarist.json`` in ``folder`` says; the files are not looked at.

    Raises:
        ModelCorrupt: it cannot be read, or is of another layout.
    """
    path = folder / MANIFEST
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelCorrupt(
            f"{path} cannot be used ({error}): export the model again with `diarist models export`."
        ) from error


def write(folder: Path, exported: Exported) -> None:
    """Write ``diarist.json``."""
    (folder / MANIFEST).write_text(json.dumps(asdict(exported), indent=2) + "\n", encoding="utf-8")


def describe(folder: Path) -> tuple[ExportedFile, ...]:
    """All files in ``folder`` with their sizes and hashes, by name."""
    return tuple(
        ExportedFile(path.name, path.stat().st_size, sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    )


def _parse(content: Mapping[str, Any]) -> Exported:
    if content["layout"] != LAYOUT:
        raise ValueError(f"its layout is {content['layout']}, this version of Diarist reads {LAYOUT}")
    if content["kind"] not in get_args(Kind):
        raise ValueError(f"there is no kind {content['kind']!r}")
    files = tuple(ExportedFile(**file) for file in content["files"])
    if any(Path(file.name).name != file.name for file in files):  # nothing outside the folder is read
        raise ValueError("a file of it is not in its folder")
    parts = {
        "files": files,
        "languages": tuple(content["languages"]),
        "features": FeatureSettings(**content["features"]),
    }
    return Exported(**{**content, **parts})


def _check(path: Path, file: ExportedFile) -> None:
    advice = "export the model again with `diarist models export`, or copy the folder again"
    try:
        size_bytes = path.stat().st_size
        whole = size_bytes == file.size_bytes and sha256_of(path) == file.sha256
    except FileNotFoundError as error:
        raise ModelCorrupt(f"{path} is missing: {advice}.") from error
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}): see to its permissions.") from error
    if not whole:
        raise ModelCorrupt(f"{path} is not the file that was exported (its size or SHA-256 differs): {advice}.")
