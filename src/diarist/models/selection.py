"""The recognizer and the models that the settings select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diarist.errors import ConfigurationError
from diarist.models.catalog import Model, RecognizerKind, load_catalog
from diarist.settings import Settings

RecognizerName = Literal["whisper", "nemo", "onnx"]

RECOGNIZERS: Mapping[RecognizerKind, RecognizerName] = {"whisper": "whisper", "tdt": "onnx"}
"""The recognizer that runs the models of each kind."""

WHISPER_PREFIX = "whisper-"
"""The part of the names of OpenAI's models that may be left out."""

DIARIZER_MODELS: Mapping[str, tuple[str, ...]] = {
    "embedded": ("segmentation-3.0", "campplus"),
    "community-1": ("community-1-segmentation", "community-1-embedding", "community-1-plda"),
}
"""The models in the catalog that a diarizer of the registry needs."""


@dataclass(frozen=True, slots=True)
class SelectedRecognizer:
    """The recognizer that the settings select, and its model."""

    name: RecognizerName
    """The name in the registry of engines."""

    model: str
    """The name of a model in the catalog, or what the setting of the recognizer refers to."""

    setting: str
    """The setting that names the model, for error messages."""


def select_recognizer(settings: Settings) -> SelectedRecognizer:
    """Return the recognizer that ``MODEL`` selects, or else ``RECOGNIZER`` and ``ENGINE``.

    Raises:
        ConfigurationError: A model that is named does not exist, or ``RECOGNIZER`` cannot run the one of ``MODEL``.
    """
    if settings.model:
        model = find_recognizer_model(settings.model, "MODEL", tuple(RECOGNIZERS))
        assert model.kind is not None
        recognizer = RECOGNIZERS[model.kind]
        if settings.recognizer not in (None, recognizer):
            raise ConfigurationError(
                f"MODEL={settings.model} needs the recognizer {recognizer}, but RECOGNIZER is {settings.recognizer}."
                " Unset one of them."
            )
        return SelectedRecognizer(recognizer, model.name, "MODEL")
    name: RecognizerName = settings.recognizer or ("whisper" if settings.engine == "embedded" else "nemo")
    if name == "whisper":
        model = find_recognizer_model(settings.whisper_model, "WHISPER_MODEL", ("whisper",))
        return SelectedRecognizer(name, model.name, "WHISPER_MODEL")
    if name == "onnx":
        return SelectedRecognizer(name, settings.onnx_asr_model, "ONNX_ASR_MODEL")
    return SelectedRecognizer(name, settings.nemo_asr_model, "NEMO_ASR_MODEL")


def find_recognizer_model(name: str, setting: str, kinds: tuple[RecognizerKind, ...]) -> Model:
    """Return a recognizer of the catalog by its name, in which ``whisper-`` may be left out.

    Raises:
        ConfigurationError: There is no such recognizer of these kinds.
    """
    models = {model.name: model for model in load_catalog().values() if model.kind in kinds}
    for candidate in (name, WHISPER_PREFIX + name):
        if candidate in models:
            return models[candidate]
    names = ", ".join(name.removeprefix(WHISPER_PREFIX) for name in models)
    raise ConfigurationError(f"{setting}: there is no model {name!r}. Choose one of {names}.")


def required(settings: Settings) -> tuple[str, ...]:
    """Return the names of the models in the catalog that the engine needs with these settings.

    Raises:
        ConfigurationError: As ``select_recognizer``.
    """
    diarizer_models = DIARIZER_MODELS.get(settings.diarizer_name, ())
    selected = select_recognizer(settings)
    recognizer_models = (selected.model,) if selected.model in load_catalog() else ()
    return (*diarizer_models, *recognizer_models)
