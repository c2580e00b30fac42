"""Loading of NeMo models from ``.nemo`` archives, restricted to the classes that are allowed for each role.

NeMo's own ``restore_from`` is not used: it changes the working directory of the whole process, writes a second copy of
the weights to disk and to the device, lets an environment variable decide whether weights may run code, and creates
whatever class it is called on. Here the archive is checked first (``archive``), the class is chosen from a fixed list,
and the weights are read directly from the archive with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diarist.engines.memory_limit import does_not_fit
from diarist.engines.nemo import archive, download, published_models, safe_import
from diarist.engines.nemo.archive import Archive
from diarist.engines.nemo.device import Runtime, is_out_of_memory
from diarist.engines.nemo.download import Reference
from diarist.engines.nemo.published_models import Role
from diarist.errors import ConfigurationError, EngineUnavailable, ModelCorrupt, ModelUnavailable
from diarist.scratch import NEMO_PREFIX, process_folder
from diarist.settings import Settings
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """Represents a NeMo model on its device, in evaluation mode."""

    model: Any
    """An instance of one of ``published_models.CLASSES``. Use it within ``runtime.inference()``."""

    info: ModelInfo
    languages: tuple[str, ...]
    """The languages of a recognizer, ISO 639-1. If empty, they are unknown, and any requested language is accepted."""

    @property
    def name(self) -> str:
        """The name for users: the name on the hub or in the catalog, or the name of the file."""
        return self.info.name


def load_model(
    reference: str, role: Role, settings: Settings, runtime: Runtime, named_by: str | None = None
) -> LoadedModel:
    """Load the model that ``reference`` names, which is downloaded if it is not on this machine.

    Args:
        reference: The path of a ``.nemo`` file, a name on the hub, or a name in NVIDIA's catalog. It must never come
            from a request.
        role: The purpose of the model; a model of another kind is rejected.
        settings: The settings that say where models are found and how they are downloaded.
        runtime: The device.
        named_by: The setting or the key of a configuration file that names the model, for messages.

    Raises:
        ModelUnavailable: If the model is unavailable.
        ModelCorrupt: If its file is damaged, unsafe, or does not have the hash in ``NEMO_SHA256`` or of
            the published model.
        ConfigurationError: If the model is not for this role, or the environment or a setting cannot be used.
        ImportError: If NeMo is not installed.
        EngineUnavailable: If NeMo cannot be imported or there is too little memory for the model.
    """
    safe_import.check_safe_loading()
    archive.parse_hashes(settings.nemo_sha256)  # before anything is downloaded
    model_reference = Reference(reference, role, named_by)
    published = published_models.find(reference)
    if published and published.role != role and not model_reference.is_path:  # before it is downloaded
        raise _wrong_role(model_reference, published.class_name)
    started = time.monotonic()
    safe_import.import_nemo(settings)
    path = download.find(model_reference, settings)
    download.check_hash(model_reference, path, settings)
    with process_folder(NEMO_PREFIX) as folder, runtime.exclusive():
        try:
            model_archive = archive.unpack(path, folder)
        except (ModelCorrupt, ModelUnavailable) as error:
            raise type(error)(f"{model_reference.label} cannot be used. {error}") from error
        class_name = published_models.RENAMED_CLASSES.get(model_archive.class_name, model_archive.class_name)
        if class_name not in published_models.CLASSES[role]:
            raise _wrong_role(model_reference, class_name)
        model = _restore(model_reference, class_name, model_archive, folder)
        _prepare(model, role, runtime, model_reference)
    name = Path(reference).stem if model_reference.is_path else reference
    logger.info("Model %s was loaded from %s in %.1f s", name, path, time.monotonic() - started)
    languages = _languages(reference, model_archive.config) if role == "recognition" else ()
    return LoadedModel(model, ModelInfo(name, role, published_models.licence(reference)), languages)


def _wrong_role(reference: Reference, class_name: str) -> ConfigurationError:
    actual_role = next((role for role, names in published_models.CLASSES.items() if class_name in names), None)
    description = f"of class {class_name}" if class_name else "of unknown class"
    if actual_role:
        description += f", a model for {actual_role}"
    required_classes = " or ".join(published_models.CLASSES[reference.role])
    return ConfigurationError(
        f"{reference.label} is {description}, but a model for {reference.role} is required: {required_classes}. Name"
        " another model."
    )


def _restore(reference: Reference, class_name: str, model_archive: Archive, folder: Path) -> Any:
    """Create the model on the CPU and load its weights.

    Raises:
        ModelCorrupt: If the configuration or the weights do not fit the class.
        EngineUnavailable: If there is too little memory.
    """
    import nemo.collections.asr.models as nemo_models
    from nemo.utils.app_state import AppState
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    model_class = getattr(nemo_models, class_name)
    try:
        config = OmegaConf.load(folder / archive.CONFIG_FILE)
        config = OmegaConf.to_container(config.get("model", config), resolve=True)
        archive.check_targets(config, model_archive.path)
        config["target"] = (
            f"{model_class.__module__}.{model_class.__qualname__}"  # older versions of NeMo had other modules
        )
        AppState().model_restore_path = str(model_archive.path)
        model_class._set_model_restore_state(is_being_restored=True, folder=str(folder))  # noqa: SLF001 - tells it where its files are
        try:
            model = model_class.from_config_dict(config=OmegaConf.create(config))
        finally:
            model_class._set_model_restore_state(is_being_restored=False)  # noqa: SLF001
        with archive.open_weights(model_archive, folder) as stream:
            weights = torch.load(stream, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{reference.label} cannot be used. {error}") from error
    except pickle.UnpicklingError as error:
        raise ModelCorrupt(
            f"{reference.label} has weights that are damaged or contain more than tensors ({model_archive.path}), so it"
            " is not loaded. Get the file from its publisher."
        ) from error
    except (OmegaConfBaseException, *_LOAD_ERRORS) as error:
        if is_out_of_memory(error):
            raise EngineUnavailable(f"{reference.label} needs more memory than is available.") from error
        raise ModelCorrupt(
            f"{reference.label} cannot be loaded from {model_archive.path}: {_first_line(error)}. The file is damaged,"
            " or was written by a version of NeMo that this one cannot read; download it again."
        ) from error
    if type(model) is not model_class:
        raise _wrong_role(reference, type(model).__name__)
    return model


_LOAD_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    EOFError,
    ImportError,
    AssertionError,
)
"""The errors that NeMo and PyTorch raise for an invalid configuration and for truncated weights."""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(" .:")


def _prepare(model: Any, role: Role, runtime: Runtime, reference: Reference) -> None:
    """Move the model to its device and prepare it for inference, without dropout and dither."""
    try:
        model.to(runtime.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        runtime.free_memory()
        raise does_not_fit(reference.label, runtime.name) from error
    model.eval()
    model.freeze()
    featurizer: Any = getattr(model.preprocessor, "featurizer", None)
    if hasattr(featurizer, "dither"):
        featurizer.dither = 0.0
    if hasattr(featurizer, "pad_to") and role in ("recognition", "diarization"):
        featurizer.pad_to = 0  # NeMo's own transcribe() and diarize() do the same


def _languages(reference: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the languages from the list of published models, from its tokenizer, or from its name, in this order."""
    published = published_models.find(reference)
    if published and published.languages:
        return published.languages
    tokenizer = config.get("tokenizer")
    tokenizers = tokenizer.get("langs") if isinstance(tokenizer, Mapping) else None
    languages = tokenizers if isinstance(tokenizers, Mapping) else ()
    return tuple(name for name in languages if len(name) == 2) or published_models.languages_by_name(reference)
