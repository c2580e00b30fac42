"""NeMo models from ``.nemo`` archives: only of the classes that their role allows, ready for use.

NeMo's own ``restore_from`` is not used: it changes the working directory of the whole process, puts a second copy of
the weights on disk and on the device, lets the environment decide whether weights may run code, and makes whatever
class it is called on. Here the archive is looked through first (``archive``), the class is taken from a closed list,
and the weights are read straight from the archive, as nothing but numbers.
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

from diarist.engines.nemo import archive, download, published_models, safe_import
from diarist.engines.nemo.archive import Archive
from diarist.engines.nemo.device import Runtime, is_out_of_memory
from diarist.engines.nemo.download import Reference
from diarist.engines.nemo.published_models import Role
from diarist.errors import ConfigurationError, EngineUnavailable, ModelCorrupt, ModelUnavailable
from diarist.models.integrity import sha256_of
from diarist.scratch import NEMO_PREFIX, process_folder
from diarist.settings import Settings
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A NeMo model on its device, in evaluation mode."""

    model: Any
    """An object of one of ``known.CLASSES``. Use it within ``runtime.using()``."""

    info: ModelInfo
    languages: tuple[str, ...]
    """ISO 639-1, of a recogniser. Empty: not known, so that any language of a request has to be accepted."""

    @property
    def name(self) -> str:
        """As shown to users: the name on the hub or in the catalogue, or that of the file."""
        return self.info.name


def load_model(
    reference: str, role: Role, settings: Settings, runtime: Runtime, named_by: str | None = None
) -> LoadedModel:
    """The model that ``reference`` names, for ``role``; downloaded where it is nowhere on this machine.

    Args:
        reference: path of a ``.nemo`` file, name on the hub, or name in NVIDIA's catalogue. Never from a request.
        role: what it is to be used for; a model of another kind is refused.
        settings: where and how to look.
        runtime: where it runs.
        named_by: the setting or the key of a configuration file that names it, for messages.

    Raises:
        ModelUnavailable: it could not be had.
        ModelCorrupt: its file is damaged, hostile, or not the one that ``NEMO_SHA256`` names.
        ConfigurationError: it is no model for this role, or the environment or a setting cannot be used.
        ImportError: NeMo is not installed.
        EngineUnavailable: NeMo or the memory of the device does not suffice for it.
    """
    safe_import.refuse_unsafe_loading()
    hashes = archive.parse_hashes(settings.nemo_sha256)
    named = Reference(reference, role, named_by)
    published = published_models.find(reference)
    if published and published.role != role and not named.is_path:  # before it is downloaded
        raise _wrong_role(named, published.class_name)
    started = time.monotonic()
    safe_import.prepare(settings)
    path = download.find(named, settings)
    if reference in hashes and (found := sha256_of(path)) != hashes[reference]:
        raise ModelCorrupt(
            f"{named.words} is not the file that NEMO_SHA256 names: {path} has the SHA-256 {found}. Get it again, or"
            " correct the hash."
        )
    with process_folder(NEMO_PREFIX) as folder, runtime.alone():
        try:
            unpacked = archive.unpack(path, folder)
        except (ModelCorrupt, ModelUnavailable) as error:
            raise type(error)(f"{named.words} cannot be used. {error}") from error
        class_name = published_models.FORMER_NAMES.get(unpacked.class_name, unpacked.class_name)
        if class_name not in published_models.CLASSES[role]:
            raise _wrong_role(named, class_name)
        model = _restore(named, class_name, unpacked, folder)
        _ready(model, role, runtime, named)
    shown = Path(reference).stem if named.is_path else reference
    logger.info("Model %s is loaded from %s in %.1f s", shown, path, time.monotonic() - started)
    languages = _languages(reference, unpacked.config) if role == "recognition" else ()
    return LoadedModel(model, ModelInfo(shown, role, published_models.licence(reference)), languages)


def _wrong_role(reference: Reference, class_name: str) -> ConfigurationError:
    kind = next((role for role, names in published_models.CLASSES.items() if class_name in names), None)
    what = f"a {class_name}, a model for {kind}" if kind else f"a {class_name}" if class_name else "of no known class"
    wanted = " or ".join(published_models.CLASSES[reference.role])
    return ConfigurationError(
        f"{reference.words} is {what}, but a model for {reference.role} is needed here: a {wanted}. Name another one."
    )


def _restore(reference: Reference, class_name: str, unpacked: Archive, folder: Path) -> Any:
    """The model on the CPU, with its weights.

    Raises:
        ModelCorrupt: the configuration or the weights do not make such a model.
    """
    import nemo.collections.asr.models as classes
    from nemo.utils.app_state import AppState
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    kind = getattr(classes, class_name)
    try:
        config = OmegaConf.load(folder / archive.CONFIG)
        config = OmegaConf.to_container(config.get("model", config), resolve=True)
        archive.check_targets(config, unpacked.path)
        config["target"] = f"{kind.__module__}.{kind.__qualname__}"  # where the class lies in this NeMo
        AppState().model_restore_path = str(unpacked.path)
        kind._set_model_restore_state(is_being_restored=True, folder=str(folder))  # noqa: SLF001 - where its files are
        try:
            model = kind.from_config_dict(config=OmegaConf.create(config))
        finally:
            kind._set_model_restore_state(is_being_restored=False)  # noqa: SLF001
        with archive.open_weights(unpacked, folder) as stream:
            weights = torch.load(stream, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{reference.words} cannot be used. {error}") from error
    except pickle.UnpicklingError as error:
        raise ModelCorrupt(
            f"{reference.words} has weights that are more than numbers, or damaged ({unpacked.path}), so it is not"
            " loaded. Get the file from its publisher."
        ) from error
    except (OmegaConfBaseException, *_UNFIT) as error:
        if is_out_of_memory(error):
            raise EngineUnavailable(f"{reference.words} needs more memory than there is.") from error
        raise ModelCorrupt(
            f"{reference.words} cannot be made from {unpacked.path}: {_first_line(error)}. The file is damaged, or of"
            " a version of NeMo that this one cannot read; get it again."
        ) from error
    if type(model) is not kind:
        raise _wrong_role(reference, type(model).__name__)
    return model


_UNFIT = (
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
"""What comes of building a model from a configuration that does not fit, and of weights that are cut off."""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(" .:")


def _ready(model: Any, role: Role, runtime: Runtime, reference: Reference) -> None:
    """Move the model to its device, for use only, with nothing in it left to chance."""
    try:
        model.to(runtime.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        runtime.free_memory()
        raise EngineUnavailable(
            f"{reference.words} does not fit into the memory of {runtime.name}: use a smaller model, let nothing else"
            " run there, or set NEMO_DEVICE to another device."
        ) from error
    model.eval()
    model.freeze()
    featurizer: Any = getattr(model.preprocessor, "featurizer", None)
    if hasattr(featurizer, "dither"):
        featurizer.dither = 0.0
    if hasattr(featurizer, "pad_to") and role in ("recognition", "diarization"):
        featurizer.pad_to = 0  # as NeMo's own transcribe() and diarize() do


def _languages(reference: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What is published of the model, else what its tokenizer says, else what its name says."""
    published = published_models.find(reference)
    if published and published.languages:
        return published.languages
    tokenizer = config.get("tokenizer")
    by_language = tokenizer.get("langs") if isinstance(tokenizer, Mapping) else None
    told = by_language if isinstance(by_language, Mapping) else ()
    return tuple(name for name in told if len(name) == 2) or published_models.languages_by_name(reference)
