"""The models outside the catalog that the settings name, found without importing any of their libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diarist.engines.nemo_yaml.diar_infer_config import read_config, recognizer_model
from diarist.models import select_recognizer
from diarist.settings import Settings


@dataclass(frozen=True, slots=True)
class RequiredModel:
    """A model, as the settings name it."""

    role: Literal["recognition", "diarization", "embedding", "vad"]
    reference: str
    """A published name, the path of a ``.nemo`` file, or the name or path of an exported model."""

    named_by: str
    """The setting or the configuration file that names it."""

    exported: bool = False
    """Whether it is an exported model rather than a NeMo model."""

    @property
    def name(self) -> str:
        """The name of the loaded model: that of its file or folder if there is one, and ``reference`` otherwise."""
        path = Path(self.reference).expanduser()
        return path.stem if path.suffix == ".nemo" else path.name if path.exists() else self.reference


def required_models(settings: Settings) -> Iterator[RequiredModel]:
    """Yield the models that the settings require; those that only a configuration file names come last.

    Raises:
        ConfigurationError: The configuration file cannot be used.
    """
    diarizer, selected = settings.diarizer_name, select_recognizer(settings)
    if diarizer in ("sortformer", "auto"):
        yield RequiredModel("diarization", settings.sortformer_model, "SORTFORMER_MODEL")
    if diarizer == "onnx":
        yield RequiredModel("vad", settings.onnx_vad_model, "ONNX_VAD_MODEL", exported=True)
        yield RequiredModel("embedding", settings.onnx_speaker_model, "ONNX_SPEAKER_MODEL", exported=True)
    if selected.name == "onnx" and not selected.cataloged:
        yield RequiredModel("recognition", selected.model, selected.setting, exported=True)
    if selected.name == "nemo":
        yield RequiredModel("recognition", *recognizer_model(settings))
    if diarizer in ("clustering", "auto"):
        config, file = read_config(settings), f"diar_infer_{settings.diar_config}.yaml"
        yield RequiredModel("vad", config.vad.model, file)
        yield RequiredModel("embedding", config.speaker_embeddings.model, file)
