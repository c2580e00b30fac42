"""Export of a NeMo model to ONNX files that the embedded engine runs without PyTorch.

NeMo writes the graphs. The export adds their weights in one file, the settings of their input features, and a manifest
with hashes, and it compares the output of the exported files with that of the model.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from diarist.engines.nemo import archive, export_formats, published_models, safe_import
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import LoadedModel, load_model
from diarist.errors import ConfigurationError, InvalidOption, ModelUnavailable
from diarist.models import exported_model
from diarist.models.exported_model import ExportedModel, Quantization
from diarist.scratch import EXPORT_PREFIX, REPLACED_PREFIX, staging_folder
from diarist.settings import Settings

logger = logging.getLogger(__name__)

ROLES: tuple[published_models.Role, ...] = ("recognition", "embedding", "vad")
"""The roles whose models can be exported."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Represents the model to export and its destination."""

    reference: str
    """A name on the hub or in NVIDIA's catalog, or the path of a ``.nemo`` file."""

    folder: Path | None = None
    """The folder in which the model's folder is created; None for the one in MODEL_DIR."""

    name: str | None = None
    """The name of the model's folder; None for the last part of the reference."""

    quantization: Quantization | None = None


def export(request: ExportRequest, settings: Settings, report: Callable[[str], None] = lambda _step: None) -> Path:
    """Export a model. An existing export of that name is replaced once the new one is complete.

    Args:
        request: The model and the destination.
        settings: The settings that say where models are found and stored.
        report: Called with the name of each step as it begins.

    Returns:
        The model's folder.

    Raises:
        ModelError: If the model is unavailable or its folder cannot be written.
        ConfigurationError: If the model is of a kind that cannot be exported, or the output of the exported files
            differs from that of the model.
        InvalidOption: If the name or the folder cannot be used, or int8 was requested for a model without it.
    """
    parent = request.folder or settings.model_dir / exported_model.FOLDER
    name = request.name or published_models.normalized_name(request.reference)
    target = _target(parent, name)
    report("loading")
    runtime = Runtime.of(settings.model_copy(update={"nemo_device": "cpu", "nemo_precision": "fp32"}))
    loaded = _load(request.reference, settings, runtime)
    kind = export_formats.kind_of(loaded.model, request.reference)
    if request.quantization and exported_model.ROLES[kind] != "recognition":
        raise InvalidOption("int8 is available only for recognizers: export this model without --quantize.")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_free_space(loaded.model, parent, request.quantization)
        with FileLock(parent / ".lock"), _staging(parent) as staging:
            with runtime.inference(exact=True), _suppress_warnings():
                properties = export_formats.write(
                    loaded.model, kind, request.reference, staging, request.quantization, report
                )
            report("describing")
            description = ExportedModel(
                name, kind, _source(request.reference), loaded.info.licence, loaded.languages, properties.frame_step,
                properties.features, request.quantization, exported_model.describe(staging), version("diarist"),
            )  # fmt: skip
            exported_model.write(staging, description)
            _replace_folder(staging, target)
    except OSError as error:
        message = (
            f"The model cannot be written to {target} ({error.strerror or error}): check the disk and its permissions."
        )
        raise ModelUnavailable(message) from error
    return target


def _target(parent: Path, name: str) -> Path:
    target = parent / name
    if not name or name.startswith(".") or Path(name).name != name:
        raise InvalidOption(f"{name!r} cannot be the name of a model: use letters, digits, dots and hyphens.")
    if target.exists() and not (target / exported_model.MANIFEST).is_file():
        raise InvalidOption(f"{target} exists and is not an exported model: give another --name or --to.")
    return target


def _source(reference: str) -> str:
    """Return the reference for the manifest: the name of a file without its path on this machine."""
    path = Path(reference).expanduser()
    return path.name if path.suffix == ".nemo" or path.is_file() else reference


def _load(reference: str, settings: Settings, runtime: Runtime) -> LoadedModel:
    """Load the model in the role that its class has.

    Raises:
        ConfigurationError: If it has none of the roles that can be exported.
    """
    safe_import.check_safe_loading()
    archive.parse_hashes(settings.nemo_sha256)  # after this, a ConfigurationError means that the role is wrong
    published = published_models.find(reference)
    likely_role = published.role if published else ROLES[0]
    first_error: ConfigurationError | None = None
    for role in sorted(ROLES, key=lambda role: role != likely_role):
        try:
            return load_model(reference, role, settings, runtime)
        except ConfigurationError as error:
            first_error = first_error or error
    raise ConfigurationError(
        f"{export_formats.not_exportable(reference, 'a model of another kind')} ({first_error})"
    ) from first_error


def _check_free_space(model: Any, parent: Path, quantization: Quantization | None) -> None:
    """Check that the disk has enough free space for the export: the graph twice, and a smaller one if quantized.

    Raises:
        ModelUnavailable: If it has not.
    """
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = int(weights_bytes * (2.3 if quantization else 2.05)) + 2**24
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ModelUnavailable(
            f"The export needs {needed / 1e6:.0f} MB in {parent}, where {free / 1e6:.0f} MB are free: free some disk"
            " space, or give another folder with --to."
        )


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Create a temporary folder and remove it afterwards, together with folders that killed exports have left."""
    with staging_folder(parent, EXPORT_PREFIX, REPLACED_PREFIX) as staging:
        staging.chmod(0o755)  # only its owner has access at first, but models are shared
        yield staging


def _replace_folder(staging: Path, target: Path) -> None:
    """Move the complete folder to its final name, replacing an existing folder."""
    previous = staging.with_name(staging.name.replace(EXPORT_PREFIX, REPLACED_PREFIX))
    if target.exists():
        target.replace(previous)
    try:
        staging.replace(target)
    except OSError:
        if previous.exists():
            previous.replace(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress the warnings of PyTorch and NeMo about tracing; the exported files are compared with the model."""
    from nemo.utils import logging as nemo_logging

    nemo_level = nemo_logging.getEffectiveLevel()
    nemo_logging.setLevel(logging.ERROR)
    root = logging.getLogger()
    root_level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(root_level)
        nemo_logging.setLevel(nemo_level)
