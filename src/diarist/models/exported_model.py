"""The description of NeMo models in ONNX format, which is the file ``diarist.json`` in the folder of each model.

``diarist models export`` writes it beside the graphs that it exports, and ``diarist models pull`` beside those that it
downloads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from diarist.errors import ModelCorrupt
from diarist.models.feature_settings import FeatureSettings
from diarist.models.file_hashes import sha256_of
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
    (folder / MANIFEST).write_bytes(dump(exported))


def dump(exported: ExportedModel) -> bytes:
    """Return the content of ``diarist.json``."""
    return json.dumps(asdict(exported), indent=2).encode() + b"\n"


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
