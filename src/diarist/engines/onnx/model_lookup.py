"""The lookup of models that ``diarist models export`` wrote, and the check of their files."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.exported_model import FOLDER, MANIFEST, ROLES, ExportedFile, ExportedModel, Kind, read
from diarist.models.file_hashes import sha256_of
from diarist.settings import Settings


def folder_of(settings: Settings, reference: str) -> Path:
    """Return the folder of a model: one in MODEL_DIR by its name, or any folder by its path."""
    path = Path(reference).expanduser()
    if path.is_absolute() or os.sep in reference:
        return path
    return settings.model_dir / FOLDER / reference


def locate(
    settings: Settings, reference: str, kinds: Collection[Kind], setting: str, *, always_read: bool = False
) -> tuple[Path, ExportedModel]:
    """Return the folder of an exported model and its description, after comparing every file with its hash.

    Args:
        settings: The settings with the folder of models.
        reference: The name of the model, or the path of its folder.
        kinds: The kinds that are allowed.
        setting: The setting that names the model, for error messages.
        always_read: Read files that have not changed since they were last hashed, too.

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
        _check(folder / file.name, file, always_read=always_read)
    return folder, exported


def _check(path: Path, file: ExportedFile, *, always_read: bool) -> None:
    advice = "Export the model again with `diarist models export`, or copy the folder again."
    try:
        size_bytes = path.stat().st_size
        intact = size_bytes == file.size_bytes and sha256_of(path, always_read=always_read) == file.sha256
    except FileNotFoundError as error:
        raise ModelCorrupt(f"{path} is missing. {advice}") from error
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if not intact:
        raise ModelCorrupt(f"{path} is not the file that was exported (its size or SHA-256 differs). {advice}")
