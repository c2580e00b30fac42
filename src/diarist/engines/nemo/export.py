"""A NeMo model as ONNX files that the embedded engine runs without PyTorch.

NeMo writes the graphs; what is added is their weights in one file, the settings of what they hear, a description with
hashes, and a look at whether the files say what the model says.
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
from diarist.engines.onnx import exported_model
from diarist.engines.onnx.exported_model import Exported, Quantization
from diarist.errors import ConfigurationError, InvalidOption, ModelUnavailable
from diarist.scratch import EXPORT_PREFIX, REPLACED_PREFIX, staging_folder
from diarist.settings import Settings

logger = logging.getLogger(__name__)

ROLES: tuple[published_models.Role, ...] = ("recognition", "embedding", "vad")
"""What models are exported for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for."""

    reference: str
    """A name on the hub or in NVIDIA's catalogue, or the path of a ``.nemo`` file."""

    folder: Path | None = None
    """Where the model's folder is made; None for the one in MODEL_DIR."""

    name: str | None = None
    """Of the model's folder; None for the last part of the reference."""

    quantization: Quantization | None = None


def export(wish: Wish, settings: Settings, tell: Callable[[str], None] = lambda _step: None) -> Path:
    """Export a model; one of that name that is there already is replaced when the new one is complete.

    Args:
        wish: which model, and where to.
        settings: where models are found and kept.
        tell: called with each step as it begins.

    Returns:
        The model's folder.

    Raises:
        ModelError: the model cannot be had, or its folder cannot be written.
        ConfigurationError: it is of a kind that cannot be exported, or its files do not say what it says.
        InvalidOption: the name or the folder cannot be used, or int8 was asked for where there is none.
    """
    parent = wish.folder or settings.model_dir / exported_model.FOLDER
    name = wish.name or published_models.stem(wish.reference)
    target = _target(parent, name)
    tell("loading")
    runtime = Runtime.of(settings.model_copy(update={"nemo_device": "cpu", "nemo_precision": "fp32"}))
    loaded = _load(wish.reference, settings, runtime)
    kind = export_formats.kind_of(loaded.model, wish.reference)
    if wish.quantization and exported_model.ROLES[kind] != "recognition":
        raise InvalidOption("int8 is for recognisers: export this model without --quantize.")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_room(loaded.model, parent, wish.quantization)
        with FileLock(parent / ".lock"), _staging(parent) as staging:
            with runtime.using(exact=True), _quiet():
                facts = export_formats.write(loaded.model, kind, wish.reference, staging, wish.quantization, tell)
            tell("describing")
            description = Exported(
                name, kind, _source(wish.reference), loaded.info.licence, loaded.languages, facts.frame_step,
                facts.features, wish.quantization, exported_model.describe(staging), version("diarist"),
            )  # fmt: skip
            exported_model.write(staging, description)
            _put(staging, target)
    except OSError as error:
        message = (
            f"The model cannot be written to {target} ({error.strerror or error}): see to the disk and its rights."
        )
        raise ModelUnavailable(message) from error
    return target


def _target(parent: Path, name: str) -> Path:
    target = parent / name
    if not name or name.startswith(".") or Path(name).name != name:
        raise InvalidOption(f"{name!r} cannot be the name of a model: give letters, digits, dots and hyphens.")
    if target.exists() and not (target / exported_model.MANIFEST).is_file():
        raise InvalidOption(f"{target} is there and holds no exported model: give another --name or --to.")
    return target


def _source(reference: str) -> str:
    """The reference as others may know it: a file by its name, not by where it lay."""
    path = Path(reference).expanduser()
    return path.name if path.suffix == ".nemo" or path.is_file() else reference


def _load(reference: str, settings: Settings, runtime: Runtime) -> LoadedModel:
    """The model, in whichever role its class has.

    Raises:
        ConfigurationError: it has none of the roles that are exported.
    """
    safe_import.refuse_unsafe_loading()
    archive.parse_hashes(settings.nemo_sha256)  # from here on a refusal is one of the role
    published = published_models.find(reference)
    likeliest = published.role if published else ROLES[0]
    refused: ConfigurationError | None = None
    for role in sorted(ROLES, key=lambda role: role != likeliest):
        try:
            return load_model(reference, role, settings, runtime)
        except ConfigurationError as error:
            refused = refused or error
    raise ConfigurationError(f"{export_formats.refusal(reference, 'a model of another kind')} ({refused})") from refused


def _check_room(model: Any, parent: Path, quantization: Quantization | None) -> None:
    """Look whether the disk has room for what is written on the way: the graph twice, and a smaller one.

    Raises:
        ModelUnavailable: it has not.
    """
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = int(weights_bytes * (2.3 if quantization else 2.05)) + 2**24
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ModelUnavailable(
            f"The export needs {needed / 1e6:.0f} MB in {parent}, where {free / 1e6:.0f} MB are free: make room, or"
            " give another folder with --to."
        )


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """A folder to write in, gone afterwards; what an export that was killed has left goes too."""
    with staging_folder(parent, EXPORT_PREFIX, REPLACED_PREFIX) as staging:
        staging.chmod(0o755)  # it was for its owner alone; models are shared
        yield staging


def _put(staging: Path, target: Path) -> None:
    """Give the complete folder its name, in place of the one that has it."""
    before = staging.with_name(staging.name.replace(EXPORT_PREFIX, REPLACED_PREFIX))
    if target.exists():
        target.replace(before)
    try:
        staging.replace(target)
    except OSError:
        if before.exists():
            before.replace(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch and NeMo warn of what tracing cannot see; whether the result is right is looked at instead."""
    from nemo.utils import logging as nemo_logging

    before = nemo_logging.getEffectiveLevel()
    nemo_logging.setLevel(logging.ERROR)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        nemo_logging.setLevel(before)
