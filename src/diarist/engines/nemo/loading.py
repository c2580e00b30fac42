"""NeMo models from ``.nemo`` archives: only of the classes that their role allows, ready for use."""

from __future__ import annotations

import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diarist.engines.nemo import known
from diarist.engines.nemo.known import Role
from diarist.engines.nemo.runtime import Runtime
from diarist.errors import ConfigurationError, ModelCorrupt, ModelUnavailable
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
        return self.info.name


def load_model(
    reference: str, role: Role, settings: Settings, runtime: Runtime, named_by: str | None = None
) -> LoadedModel:
    """The model that ``reference`` names, for ``role``.

    Args:
        reference: path of a ``.nemo`` file, name on the hub, or name in NVIDIA's catalogue.
        role: what it is to be used for; a model of another kind is refused.
        settings: where and how to look.
        runtime: where it runs.
        named_by: the setting or the key of a configuration file that names it, for messages.

    Raises:
        ModelUnavailable: it could not be had.
        ModelCorrupt: its file is damaged or hostile.
        ConfigurationError: it is no model for this role.
    """
    import nemo.collections.asr.models as classes

    path = Path(reference).expanduser()
    if not path.is_file():
        raise ModelUnavailable(f"There is no model {reference}.")
    with runtime.using():
        try:
            config = classes.ASRModel.restore_from(str(path), return_config=True)
        except tarfile.TarError as error:
            raise ModelCorrupt(f"{path} is no NeMo model: {error}.") from error
        name = str(config.get("target", "")).rpartition(".")[2]
        if name not in known.CLASSES[role]:
            raise ConfigurationError(f"{reference} is a {name or 'thing of no known class'}, no model for {role}.")
        model = getattr(classes, name).restore_from(str(path), map_location=runtime.device)
    model.eval()
    model.freeze()
    featurizer = model.preprocessor.featurizer
    if hasattr(featurizer, "dither"):
        featurizer.dither = 0.0
    if hasattr(featurizer, "pad_to") and role in ("recognition", "diarization"):
        featurizer.pad_to = 0  # as NeMo's own transcribe() and diarize() do
    info = ModelInfo(known.stem(reference), role, known.licence(reference))
    return LoadedModel(model, info, known.languages(reference) if role == "recognition" else ())
