"""The configuration of clustering: lookup, parsing and validation of NeMo's ``diar_infer_*.yaml``.

The keys that have an effect become a ``DiarConfig``. Every other key of NeMo's own files, of any version, is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.yaml_file import (
    ConfigFile,
    InvalidValue,
    Schema,
    boolean,
    find_config,
    ignored,
    integer,
    list_of,
    non_blank_text,
    nullable,
    number,
    one_of,
)
from diarist.settings import Settings
from diarist.types import MAX_SPEAKERS, SAMPLE_RATE, Seconds

logger = logging.getLogger(__name__)

Smoothing = Literal["median", "mean"]


@dataclass(frozen=True, slots=True)
class VadConfig:
    """The configuration of voice activity detection."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    binarization: Binarization = field(default_factory=Binarization)

    window: Seconds = 0.63
    """The length of a window, for models that classify windows; models that classify frames do not use it."""

    shift: Seconds = 0.01
    """The interval between two such windows; models that classify frames have a fixed interval."""

    smoothing: Smoothing | None = None
    """How overlapping windows are combined. If None, the probability of a window is that of its center."""

    overlap: float = 0.5
    """The share of a window that the next one overlaps when windows are combined, 0..1 (1 excluded)."""


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """The configuration of one scale: the length of its windows and the interval between them."""

    window: Seconds
    shift: Seconds
    weight: float = 1.0
    """The weight of this scale's similarities relative to those of the other scales."""


@dataclass(frozen=True, slots=True)
class SpeakerEmbeddingsConfig:
    """The configuration of speaker embeddings."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    scales: tuple[ScaleConfig, ...] = (ScaleConfig(1.5, 0.75),)
    """The scales, longest windows first. The last is the base scale, whose windows get the labels."""


@dataclass(frozen=True, slots=True)
class ClusteringConfig:
    """The parameters of NeMo's clustering. The names are those of NeMo's configurations."""

    max_num_speakers: int = 8
    """The maximum number of speakers if no hint gives another limit."""

    enhanced_count_thres: int = 80
    """Up to this number of windows, speakers are counted with a method for short recordings."""

    max_rp_threshold: float = 0.25
    """The maximum number of neighbors of a window, as a share of all windows."""

    sparse_search_volume: int = 30
    """How many numbers of neighbors are tried."""

    maj_vote_spk_count: bool = False
    """Whether the number of speakers is decided by a majority of those tries instead of by the best one."""

    chunk_cluster_count: int = 50
    """The number of clusters into which each chunk of a long recording is clustered."""

    embeddings_per_chunk: int = 10_000
    """The number of windows of the base scale in each chunk of a long recording."""


@dataclass(frozen=True, slots=True)
class DiarConfig:
    """The parts of a ``diar_infer_*.yaml`` that have an effect."""

    vad: VadConfig
    speaker_embeddings: SpeakerEmbeddingsConfig
    clustering: ClusteringConfig = ClusteringConfig()
    asr_model: str | None = None
    """The recognizer that the file names, if any."""

    batch_size: int = 64
    """The batch size in windows if NEMO_BATCH is 0."""


def _sample_rate(value: Any) -> int:
    if value != SAMPLE_RATE:
        raise InvalidValue(f"{SAMPLE_RATE}, the sample rate to which every recording is decoded")
    return SAMPLE_RATE


def _model_name(value: Any) -> str:
    if value is None:
        raise InvalidValue(
            "a model: this file must name one for voice activity detection and one for speaker embeddings"
        )
    return str(non_blank_text(value))


_PADDING, _DURATION = number(-10, 10), number(0, 60, exclusive_minimum=True)

SCHEMA: Schema = {
    "name": ignored, "num_workers": ignored, "device": ignored, "map_location": ignored, "verbose": ignored,
    "sample_rate": _sample_rate, "batch_size": integer(1, 4_096),
    "diarizer": {
        "manifest_filepath": ignored, "out_dir": ignored, "oracle_vad": ignored, "collar": ignored,
        "ignore_overlap": ignored,
        "vad": {
            "model_path": _model_name, "external_vad_manifest": ignored,
            "parameters": {
                "window_length_in_sec": number(0, 60), "shift_length_in_sec": _DURATION,
                "smoothing": one_of(False, None, "median", "mean"), "overlap": number(0, 0.99),
                "onset": number(0, 1), "offset": number(0, 1), "pad_onset": _PADDING, "pad_offset": _PADDING,
                "min_duration_on": number(0, 60), "min_duration_off": number(0, 60), "filter_speech_first": boolean,
                "scale": one_of("absolute"), "normalize_audio": ignored,
            },
        },
        "speaker_embeddings": {
            "model_path": _model_name,
            "parameters": {
                "window_length_in_sec": list_of(_DURATION), "shift_length_in_sec": list_of(_DURATION),
                "multiscale_weights": nullable(list_of(number(0, 1_000))), "save_embeddings": ignored,
            },
        },
        "clustering": {
            "parameters": {
                "oracle_num_speakers": ignored, "max_num_speakers": integer(1, MAX_SPEAKERS),
                "enhanced_count_thres": integer(0), "max_rp_threshold": number(0, 1, exclusive_minimum=True),
                "sparse_search_volume": integer(1), "maj_vote_spk_count": boolean,
                "chunk_cluster_count": nullable(integer(2, 10_000)), "embeddings_per_chunk": nullable(integer(100)),
                "export_script_module": ignored,
            },
        },
        "msdd_model": {"model_path": ignored, "parameters": ignored},
        "asr": {
            "model_path": nullable(non_blank_text),
            "parameters": dict.fromkeys((
                "asr_based_vad", "asr_based_vad_threshold", "asr_batch_size", "lenient_overlap_WDER",
                "decoder_delay_in_sec", "word_ts_anchor_offset", "word_ts_anchor_pos", "fix_word_ts_with_VAD",
                "colored_text", "print_time", "break_lines",
            ), ignored),
            "ctc_decoder_parameters": dict.fromkeys(
                ("pretrained_language_model", "beam_width", "alpha", "beta"), ignored
            ),
            "realigning_lm_parameters": dict.fromkeys(
                ("arpa_language_model", "min_number_of_words", "max_number_of_words", "logprob_diff_threshold"), ignored
            ),
        },
    },
}  # fmt: skip
"""Every key with its check."""

KEYS_WITHOUT_EFFECT: Mapping[str, str] = {
    "device": "DEVICE selects the device",
    "diarizer.oracle_vad": "speech is always detected by the VAD model",
    "diarizer.vad.external_vad_manifest": "speech is always detected by the VAD model",
    "diarizer.clustering.parameters.oracle_num_speakers": "the request can give the number of speakers",
    "diarizer.msdd_model": "NeMo 3 has no MSDD",
    "diarizer.asr.parameters.asr_based_vad": "speech is always detected by the VAD model",
    "diarizer.asr.ctc_decoder_parameters.pretrained_language_model": "words are decoded without a language model",
    "diarizer.asr.realigning_lm_parameters.arpa_language_model": "words get their speakers without a language model",
}
"""Keys without effect from which users may expect one. A warning with the reason is logged if they are set."""


DEFAULT_RECOGNIZER = "nvidia/parakeet-tdt-0.6b-v3"
"""The recognizer if neither the settings nor the configuration names one."""


def read_config(settings: Settings) -> DiarConfig:
    """Read the configuration that ``DIAR_CONFIG`` and ``MODEL_CONFIG_DIR`` select.

    Raises:
        ConfigurationError: If the file is missing, cannot be read or is invalid. The message names the file and the
            key.
    """
    file = ConfigFile(find_config(settings, "diar_infer", settings.diar_config, "DIAR_CONFIG"), SCHEMA)
    for key in filter(file.is_set, KEYS_WITHOUT_EFFECT):
        _warn_without_effect(file.path, key)
    return DiarConfig(
        _vad(file, "diarizer.vad"),
        _speaker_embeddings(file, "diarizer.speaker_embeddings"),
        _clustering(file, "diarizer.clustering.parameters"),
        _asr_model(file, "diarizer.asr.model_path"),
        file.values.get("batch_size", 64),
    )


def recognizer_model(settings: Settings) -> tuple[str, str]:
    """Return the name of NeMo's recognizer, and the setting or the configuration file that contains it.

    Raises:
        ConfigurationError: If the name has to be read from the configuration and the configuration cannot be used.
    """
    if settings.nemo_asr_model:
        return settings.nemo_asr_model, "NEMO_ASR_MODEL"
    model = read_config(settings).asr_model
    if model:
        return model, f"diar_infer_{settings.diar_config}.yaml"
    return DEFAULT_RECOGNIZER, "NEMO_ASR_MODEL by default"


@cache
def _warn_without_effect(path: Path, key: str) -> None:
    """Log a warning, only once although the same file is read again for the recognizer's name."""
    logger.warning("%s: %s has no effect: %s", path, key, KEYS_WITHOUT_EFFECT[key])


def _vad(file: ConfigFile, section: str) -> VadConfig:
    def parameter(name: str, default: Any) -> Any:
        return file.values.get(f"{section}.parameters.{name}", default)

    model, defaults = _model(file, section), VadConfig("")
    config = VadConfig(
        model,
        Binarization(**_fields(file, Binarization, f"{section}.parameters")),
        parameter("window_length_in_sec", defaults.window),
        parameter("shift_length_in_sec", defaults.shift),
        parameter("smoothing", None) or None,
        parameter("overlap", defaults.overlap),
    )
    if config.smoothing and config.window * (1 - config.overlap) < config.shift:
        raise file.error(
            f"{section}.parameters.overlap", f"is {config.overlap:g}",
            "with this overlap windows would follow each other in less than shift_length_in_sec: lower it",
        )  # fmt: skip
    return config


def _speaker_embeddings(file: ConfigFile, section: str) -> SpeakerEmbeddingsConfig:
    model, prefix = _model(file, section), f"{section}.parameters"
    windows, shifts, weights = (
        file.values.get(f"{prefix}.{name}")
        for name in ("window_length_in_sec", "shift_length_in_sec", "multiscale_weights")
    )
    if windows is None and shifts is None and weights is None:
        return SpeakerEmbeddingsConfig(model)
    windows, shifts = windows or (), shifts or ()
    weights = weights or (1.0,) * len(windows)
    if not len(windows) == len(shifts) == len(weights):
        raise file.error(
            prefix,
            f"has {len(windows)} values of window_length_in_sec, {len(shifts)} of shift_length_in_sec and"
            f" {len(weights)} of multiscale_weights",
            "give the same number of each, one per scale",
        )
    if any(shift > window for window, shift in zip(windows, shifts, strict=True)):
        raise file.error(
            prefix, "has a shift longer than its window", "some speech would be skipped; half of the window is usual"
        )
    if len(set(windows)) < len(windows):
        raise file.error(f"{prefix}.window_length_in_sec", "contains a length twice", "give each scale once")
    if not any(weights):
        raise file.error(f"{prefix}.multiscale_weights", "is 0 for every scale", "set at least one of them above 0")
    scales = (ScaleConfig(*values) for values in zip(windows, shifts, weights, strict=True))
    return SpeakerEmbeddingsConfig(model, tuple(sorted(scales, key=lambda scale: -scale.window)))


def _clustering(file: ConfigFile, prefix: str) -> ClusteringConfig:
    config = ClusteringConfig(**_fields(file, ClusteringConfig, prefix))
    if config.chunk_cluster_count >= config.embeddings_per_chunk:
        raise file.error(
            f"{prefix}.chunk_cluster_count", f"is {config.chunk_cluster_count}",
            f"it must be below embeddings_per_chunk, {config.embeddings_per_chunk}",
        )  # fmt: skip
    return config


def _asr_model(file: ConfigFile, key: str) -> str | None:
    model = file.values.get(key)
    return None if model is None else file.resolve_model_path(model)


def _model(file: ConfigFile, section: str) -> str:
    key = f"{section}.model_path"
    if key not in file.values:
        raise file.error(key, "is missing", "give the name of a model, or the path of its .nemo file")
    return file.resolve_model_path(file.values[key])


def _fields(file: ConfigFile, dataclass_type: type, prefix: str) -> dict[str, Any]:
    """Return the values in the file for the fields of a dataclass, whose names are the keys of the file."""
    values = {field_info.name: file.values.get(f"{prefix}.{field_info.name}") for field_info in fields(dataclass_type)}
    return {name: value for name, value in values.items() if value is not None}
