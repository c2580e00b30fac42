"""Which models the settings name beside those of the catalogue, told without any of their libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diarist.engines.nemo_yaml.diar_infer_config import read_config, recognizer_model
from diarist.settings import Settings


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model by what the settings call it."""

    role: Literal["recognition", "diarization", "embedding", "vad"]
    reference: str
    """A published name, the path of a ``.nemo`` file, or the name or path of an export."""

    named_by: str
    """The setting or the configuration file that names it."""

    exported: bool = False
    """Whether an export is meant rather than a model of NeMo's."""

    @property
    def name(self) -> str:
        """As the loaded model is called: a file or a folder by its own name, all else as it is named."""
        path = Path(self.reference).expanduser()
        return path.stem if path.suffix == ".nemo" else path.name if path.exists() else self.reference


def wanted(settings: Settings) -> Iterator[WantedModel]:
    """Each of them; those that only a configuration file names come last.

    Raises:
        ConfigurationError: the configuration file cannot be used.
    """
    diarizer, recognizer = settings.diarizer_name, settings.recognizer_name
    if diarizer in ("sortformer", "auto"):
        yield WantedModel("diarization", settings.sortformer_model, "SORTFORMER_MODEL")
    if diarizer == "onnx":
        yield WantedModel("vad", settings.onnx_vad_model, "ONNX_VAD_MODEL", exported=True)
        yield WantedModel("embedding", settings.onnx_speaker_model, "ONNX_SPEAKER_MODEL", exported=True)
    if recognizer == "onnx":
        yield WantedModel("recognition", settings.onnx_asr_model, "ONNX_ASR_MODEL", exported=True)
    if recognizer == "nemo":
        yield WantedModel("recognition", *recognizer_model(settings))
    if diarizer in ("clustering", "auto"):
        config, file = read_config(settings), f"diar_infer_{settings.diar_config}.yaml"
        yield WantedModel("vad", config.vad.model, file)
        yield WantedModel("embedding", config.speaker_embeddings.model, file)
