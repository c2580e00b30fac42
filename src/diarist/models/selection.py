"""The recognizer and the models that the settings select."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diarist.errors import ConfigurationError
from diarist.models import exported_model
from diarist.models.catalog import WHISPER_PREFIX, Model, RecognizerKind
from diarist.models.names import resolve_name
from diarist.models.user_catalog import catalog_of
from diarist.settings import Settings

logger = logging.getLogger(__name__)

RecognizerName = Literal["whisper", "nemo", "onnx"]

RECOGNIZERS: Mapping[RecognizerKind, RecognizerName] = {"whisper": "whisper", "tdt": "onnx"}
"""The recognizer that runs the models of each kind."""

DIARIZER_MODELS: Mapping[str, tuple[str, ...]] = {
    "embedded": ("segmentation-3.0",),
    "community-1": ("community-1-segmentation", "community-1-embedding", "community-1-plda"),
}
"""The models in the catalog that a diarizer of the registry always needs. The embedded one also needs that of
``EMBEDDING_MODEL``."""


@dataclass(frozen=True, slots=True)
class SelectedRecognizer:
    """The recognizer that the settings select, and its model."""

    name: RecognizerName
    """The name in the registry of engines."""

    model: str
    """The name of a model in the catalog, or what the setting of the recognizer refers to."""

    setting: str
    """The setting that names the model, for error messages."""

    cataloged: bool = False
    """Whether the model comes from the catalog; otherwise it is an exported model or one of NeMo."""


def select_recognizer(settings: Settings) -> SelectedRecognizer:
    """Return the recognizer that ``MODEL`` selects, or else ``RECOGNIZER`` and ``ENGINE``.

    Raises:
        ConfigurationError: A model that is named does not exist, or ``RECOGNIZER`` cannot run the one of ``MODEL``.
    """
    if settings.model:
        model = find_recognizer_model(settings, settings.model, "MODEL", tuple(RECOGNIZERS))
        assert model.kind is not None
        recognizer = RECOGNIZERS[model.kind]
        if settings.recognizer not in (None, recognizer):
            raise ConfigurationError(
                f"MODEL={settings.model} needs the recognizer {recognizer}, but RECOGNIZER is {settings.recognizer}."
                " Unset one of them."
            )
        return SelectedRecognizer(recognizer, model.name, "MODEL", cataloged=True)
    name: RecognizerName = settings.recognizer or ("whisper" if settings.engine == "embedded" else "nemo")
    if name == "whisper":
        model = find_recognizer_model(settings, settings.whisper_model, "WHISPER_MODEL", ("whisper",))
        return SelectedRecognizer(name, model.name, "WHISPER_MODEL", cataloged=True)
    if name == "onnx":
        reference = settings.onnx_asr_model
        exported = (settings.model_dir / exported_model.FOLDER / reference / exported_model.MANIFEST).is_file()
        published = catalog_of(settings).get(reference)
        cataloged = not exported and published is not None and published.kind == "tdt"
        return SelectedRecognizer(name, reference, "ONNX_ASR_MODEL", cataloged=cataloged)
    return SelectedRecognizer(name, settings.nemo_asr_model, "NEMO_ASR_MODEL")


def find_recognizer_model(settings: Settings, name: str, setting: str, kinds: tuple[RecognizerKind, ...]) -> Model:
    """Return a recognizer of the catalog by its name, as ``resolve_name`` understands it.

    Raises:
        ConfigurationError: There is no such recognizer of these kinds.
    """
    models = {model.name: model for model in catalog_of(settings).values() if model.kind in kinds}
    return _find_model(name, models, setting)


def select_embedding_model(settings: Settings) -> Model:
    """Return the speaker embedding model that ``EMBEDDING_MODEL`` selects for the embedded diarizer.

    Raises:
        ConfigurationError: There is no such model.
    """
    catalog = catalog_of(settings).values()
    models = {model.name: model for model in catalog if model.role == "embedding" and model.features is not None}
    return _find_model(settings.embedding_model, models, "EMBEDDING_MODEL")


def _find_model(name: str, models: Mapping[str, Model], setting: str) -> Model:
    resolved = resolve_name(name, models)
    if resolved is not None:
        return models[resolved]
    names = [name.removeprefix(WHISPER_PREFIX) for name in models]
    close = difflib.get_close_matches(name.lower().removeprefix(WHISPER_PREFIX), names, n=3)
    other_names = (other for other in names if other not in close)
    suggestion = f" Did you mean {close[0]}?" if close else ""
    raise ConfigurationError(
        f"{setting}: there is no model {name!r}.{suggestion} Choose one of {', '.join([*close, *other_names])}."
    )


def recognizer_names(settings: Settings) -> tuple[str, ...]:
    """Return the names that ``MODEL`` may have, in the order of the catalog and without ``whisper-``.

    Raises:
        ConfigurationError: ``MODEL_CATALOG`` cannot be used.
    """
    models = catalog_of(settings).values()
    return tuple(model.name.removeprefix(WHISPER_PREFIX) for model in models if model.kind is not None)


def recognizer_summary(settings: Settings) -> str:
    """Return the recognizer and its model in words, for log lines.

    Raises:
        ConfigurationError: As ``select_recognizer``.
    """
    selected = select_recognizer(settings)
    return f"{selected.name} with {selected.model}" if selected.model else selected.name


def log_untested(settings: Settings) -> None:
    """Log which of the selected models nobody has run with Diarist yet, if there are any.

    Raises:
        ConfigurationError: As ``required``.
    """
    recognizer = select_recognizer(settings)
    selected = [catalog_of(settings)[recognizer.model]] if recognizer.cataloged else []
    if settings.diarizer_name == "embedded":
        selected.append(select_embedding_model(settings))
    for model in selected:
        if not model.tested:
            logger.info(
                "The developers of Diarist have never run %s with its published weights. `diarist evaluate` measures"
                " its accuracy on your recordings.", model.name,
            )  # fmt: skip


def required(settings: Settings) -> tuple[str, ...]:
    """Return the names of the models in the catalog that the engine needs with these settings.

    Raises:
        ConfigurationError: As ``select_recognizer`` and, for the embedded diarizer, ``select_embedding_model``.
    """
    diarizer_models = required_by_diarizer(settings)
    selected = select_recognizer(settings)
    recognizer_models = (selected.model,) if selected.cataloged else ()
    return (*diarizer_models, *recognizer_models)


def required_by_diarizer(settings: Settings) -> tuple[str, ...]:
    """Return the names of the models in the catalog that the diarizer needs with these settings.

    Raises:
        ConfigurationError: As ``select_embedding_model``, for the embedded diarizer.
    """
    models = DIARIZER_MODELS.get(settings.diarizer_name, ())
    if settings.diarizer_name == "embedded":
        models += (select_embedding_model(settings).name,)
    return models
