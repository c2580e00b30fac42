"""The configuration of clustering: NeMo's ``diar_infer_*.yaml``, found, read and checked.

What has an effect here becomes a ``DiarConfig``; every other key that NeMo's files have ever had is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.validation import (
    ConfigFile,
    Schema,
    Unfit,
    each,
    find_config,
    flag,
    ignored,
    number,
    one_of,
    or_null,
    text,
    whole,
)
from diarist.settings import Settings
from diarist.types import MAX_SPEAKERS, SAMPLE_RATE, Seconds

logger = logging.getLogger(__name__)

Smoothing = Literal["median", "mean"]


@dataclass(frozen=True, slots=True)
class VadConfig:
    """What finds speech, and when speech counts."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    rule: Binarization = field(default_factory=Binarization)

    window: Seconds = 0.63
    """What a model that judges whole windows hears at once; models that judge frames do not use it."""

    shift: Seconds = 0.01
    """From one such window to the next; models that judge frames have their own."""

    smoothing: Smoothing | None = None
    """How the judgements of overlapping windows are made one, or None where the window's centre is what it judges."""

    overlap: float = 0.5
    """Share of a window that the next one overlaps when they are smoothed, 0..1 (1 excluded)."""


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """Windows of one length that get embeddings."""

    window: Seconds
    shift: Seconds
    weight: float = 1.0
    """Of this scale's similarities against those of the others."""


@dataclass(frozen=True, slots=True)
class SpeakerEmbeddingsConfig:
    """What tells voices apart."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    scales: tuple[ScaleConfig, ...] = (ScaleConfig(1.5, 0.75),)
    """Longest windows first; the last is the base scale, whose windows get the labels."""


@dataclass(frozen=True, slots=True)
class ClusteringConfig:
    """How NeMo's clustering finds the number of speakers. The names are those of NeMo's configurations."""

    max_num_speakers: int = 8
    """The most speakers, where no hint gives another limit."""

    enhanced_count_thres: int = 80
    """With fewer windows than this, speakers are counted by a way for short recordings."""

    max_rp_threshold: float = 0.25
    """The largest share of all windows that a window may have for neighbours."""

    sparse_search_volume: int = 30
    """How many numbers of neighbours are tried."""

    maj_vote_spk_count: bool = False
    """Whether the number of speakers is what most of those tries find, rather than what the best one finds."""

    chunk_cluster_count: int = 50
    """Clusters that stand for each chunk of a long recording."""

    embeddings_per_chunk: int = 10_000
    """Windows of the base scale in each chunk of a long recording."""


@dataclass(frozen=True, slots=True)
class DiarConfig:
    """What of a ``diar_infer_*.yaml`` has an effect here."""

    vad: VadConfig
    voices: SpeakerEmbeddingsConfig
    clustering: ClusteringConfig = ClusteringConfig()
    asr_model: str | None = None
    """The recogniser that it names, if any."""

    batch_size: int = 64
    """Windows at a time, where NEMO_BATCH says nothing else."""


def _rate(value: Any) -> int:
    if value != SAMPLE_RATE:
        raise Unfit(f"{SAMPLE_RATE}, which is what every recording is decoded to")
    return SAMPLE_RATE


def _model_name(value: Any) -> str:
    if value is None:
        raise Unfit("a model: speech is always found, and voices told apart, by one that this file names")
    return str(text(value))


_PAD, _LENGTH = number(-10, 10), number(0, 60, above=True)

SCHEMA: Schema = {
    "name": ignored, "num_workers": ignored, "device": ignored, "map_location": ignored, "verbose": ignored,
    "sample_rate": _rate, "batch_size": whole(1, 4_096),
    "diarizer": {
        "manifest_filepath": ignored, "out_dir": ignored, "oracle_vad": ignored, "collar": ignored,
        "ignore_overlap": ignored,
        "vad": {
            "model_path": _model_name, "external_vad_manifest": ignored,
            "parameters": {
                "window_length_in_sec": number(0, 60), "shift_length_in_sec": _LENGTH,
                "smoothing": one_of(False, None, "median", "mean"), "overlap": number(0, 0.99),
                "onset": number(0, 1), "offset": number(0, 1), "pad_onset": _PAD, "pad_offset": _PAD,
                "min_duration_on": number(0, 60), "min_duration_off": number(0, 60), "filter_speech_first": flag,
                "scale": one_of("absolute"), "normalize_audio": ignored,
            },
        },
        "speaker_embeddings": {
            "model_path": _model_name,
            "parameters": {
                "window_length_in_sec": each(_LENGTH), "shift_length_in_sec": each(_LENGTH),
                "multiscale_weights": or_null(each(number(0, 1_000))), "save_embeddings": ignored,
            },
        },
        "clustering": {
            "parameters": {
                "oracle_num_speakers": ignored, "max_num_speakers": whole(1, MAX_SPEAKERS),
                "enhanced_count_thres": whole(0), "max_rp_threshold": number(0, 1, above=True),
                "sparse_search_volume": whole(1), "maj_vote_spk_count": flag,
                "chunk_cluster_count": or_null(whole(2, 10_000)), "embeddings_per_chunk": or_null(whole(100)),
                "export_script_module": ignored,
            },
        },
        "msdd_model": {"model_path": ignored, "parameters": ignored},
        "asr": {
            "model_path": or_null(text),
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
"""Every key, with what checks it."""

WITHOUT_EFFECT: Mapping[str, str] = {
    "device": "NEMO_DEVICE says where models run",
    "diarizer.oracle_vad": "speech is always found by the VAD model",
    "diarizer.vad.external_vad_manifest": "speech is always found by the VAD model",
    "diarizer.clustering.parameters.oracle_num_speakers": "the caller says how many speakers there are, if anybody",
    "diarizer.msdd_model": "NeMo 3 has no MSDD",
    "diarizer.asr.parameters.asr_based_vad": "speech is always found by the VAD model",
    "diarizer.asr.ctc_decoder_parameters.pretrained_language_model": "words are decoded without a language model",
    "diarizer.asr.realigning_lm_parameters.arpa_language_model": "words get their speakers without a language model",
}
"""What a user may count on in vain: said in the log where it is set."""


DEFAULT_RECOGNIZER = "nvidia/parakeet-tdt-0.6b-v3"
"""Where neither the settings nor the configuration names one."""


def read_config(settings: Settings) -> DiarConfig:
    """The configuration that ``DIAR_CONFIG`` and ``MODEL_CONFIG_DIR`` name.

    Raises:
        ConfigurationError: it is not there, cannot be read, or holds what cannot be; the message names file and key.
    """
    file = ConfigFile(find_config(settings, "diar_infer", settings.diar_config, "DIAR_CONFIG"), SCHEMA)
    for key in filter(file.given, WITHOUT_EFFECT):
        _say_without_effect(file.path, key)
    return DiarConfig(
        _vad(file, "diarizer.vad"),
        _voices(file, "diarizer.speaker_embeddings"),
        _clustering(file, "diarizer.clustering.parameters"),
        _asr(file, "diarizer.asr.model_path"),
        file.values.get("batch_size", 64),
    )


def recognizer_model(settings: Settings) -> tuple[str, str]:
    """NeMo's recogniser, and the setting or the configuration file that names it.

    Raises:
        ConfigurationError: the configuration would be asked and cannot be used.
    """
    if settings.nemo_asr_model:
        return settings.nemo_asr_model, "NEMO_ASR_MODEL"
    named = read_config(settings).asr_model
    if named:
        return named, f"diar_infer_{settings.diar_config}.yaml"
    return DEFAULT_RECOGNIZER, "NEMO_ASR_MODEL by default"


@cache
def _say_without_effect(path: Path, key: str) -> None:
    """Once, though the recogniser's name is read from the same file."""
    logger.warning("%s: %s has no effect: %s", path, key, WITHOUT_EFFECT[key])


def _vad(file: ConfigFile, section: str) -> VadConfig:
    def given(name: str, default: Any) -> Any:
        return file.values.get(f"{section}.parameters.{name}", default)

    model, base = _model(file, section), VadConfig("")
    config = VadConfig(
        model,
        Binarization(**_fields(file, Binarization, f"{section}.parameters")),
        given("window_length_in_sec", base.window),
        given("shift_length_in_sec", base.shift),
        given("smoothing", None) or None,
        given("overlap", base.overlap),
    )
    if config.smoothing and config.window * (1 - config.overlap) < config.shift:
        raise file.fault(
            f"{section}.parameters.overlap", f"is {config.overlap:g}",
            "windows that overlap by so much would follow each other in less than shift_length_in_sec: lower it",
        )  # fmt: skip
    return config


def _voices(file: ConfigFile, section: str) -> SpeakerEmbeddingsConfig:
    model, above = _model(file, section), f"{section}.parameters"
    windows, shifts, weights = (
        file.values.get(f"{above}.{name}")
        for name in ("window_length_in_sec", "shift_length_in_sec", "multiscale_weights")
    )
    if windows is None and shifts is None and weights is None:
        return SpeakerEmbeddingsConfig(model)
    windows, shifts = windows or (), shifts or ()
    weights = weights or (1.0,) * len(windows)
    if not len(windows) == len(shifts) == len(weights):
        raise file.fault(
            above,
            f"gives {len(windows)} of window_length_in_sec, {len(shifts)} of shift_length_in_sec and {len(weights)} of"
            " multiscale_weights",
            "give as many of each, one for each scale",
        )
    if any(shift > window for window, shift in zip(windows, shifts, strict=True)):
        raise file.fault(above, "has a shift longer than its window", "some speech would not be heard; half is usual")
    if len(set(windows)) < len(windows):
        raise file.fault(f"{above}.window_length_in_sec", "names a length twice", "give each scale once")
    if not any(weights):
        raise file.fault(f"{above}.multiscale_weights", "is 0 for every scale", "give one of them more")
    scales = (ScaleConfig(*values) for values in zip(windows, shifts, weights, strict=True))
    return SpeakerEmbeddingsConfig(model, tuple(sorted(scales, key=lambda scale: -scale.window)))


def _clustering(file: ConfigFile, above: str) -> ClusteringConfig:
    config = ClusteringConfig(**_fields(file, ClusteringConfig, above))
    if config.chunk_cluster_count >= config.embeddings_per_chunk:
        raise file.fault(
            f"{above}.chunk_cluster_count", f"is {config.chunk_cluster_count}",
            f"must be below embeddings_per_chunk, {config.embeddings_per_chunk}",
        )  # fmt: skip
    return config


def _asr(file: ConfigFile, key: str) -> str | None:
    given = file.values.get(key)
    return None if given is None else file.located(given)


def _model(file: ConfigFile, section: str) -> str:
    key = f"{section}.model_path"
    if key not in file.values:
        raise file.fault(key, "is missing", "give the name of a model, or the path of its .nemo file")
    return file.located(file.values[key])


def _fields(file: ConfigFile, kind: type, above: str) -> dict[str, Any]:
    """What the file says of the fields of a dataclass, whose names are the file's."""
    given = {item.name: file.values.get(f"{above}.{item.name}") for item in fields(kind)}
    return {name: value for name, value in given.items() if value is not None}
