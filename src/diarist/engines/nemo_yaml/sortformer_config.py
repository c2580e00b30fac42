"""The configuration of Sortformer: lookup, parsing and validation of ``sortformer_*.yaml``.

NeMo's own post-processing files contain only ``parameters`` and work unchanged. A missing threshold is 0.5 and a
missing duration is 0, as in NeMo. This module does not need PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.yaml_file import ConfigFile, Schema, find_config, integer, number
from diarist.settings import Settings


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """The parameters of streaming, in frames of 80 ms. The names are those of NeMo's ``SortformerModules``.

    The defaults are the setting that the model's page calls very high latency, which is the most accurate one.
    """

    chunk_len: int = 340
    """The number of frames that are predicted at a time."""

    chunk_left_context: int = 1
    """The number of frames before a chunk that are included in its features."""

    chunk_right_context: int = 40
    """The number of frames after a chunk that are processed with it, as look-ahead."""

    fifo_len: int = 40
    """The number of most recent frames that are processed again, uncompressed."""

    spkcache_update_period: int = 300
    """The number of frames that move into the speaker cache at a time; NeMo uses at least the length of a chunk."""

    spkcache_len: int = 188
    """The number of frames in the speaker cache, for all speakers together."""


@dataclass(frozen=True, slots=True)
class SortformerConfig:
    """The contents of a ``sortformer_*.yaml``."""

    binarization: Binarization
    streaming: StreamingConfig


MAX_FRAMES = 2_000
"""The maximum number of frames of 80 ms, 160 s. Memory grows with the square of what is processed at once."""

_FRAMES = integer(0, MAX_FRAMES)

SCHEMA: Schema = {
    "parameters": {
        "onset": number(0, 1), "offset": number(0, 1), "pad_onset": number(-10, 10), "pad_offset": number(-10, 10),
        "min_duration_on": number(0, 60), "min_duration_off": number(0, 60),
    },
    "streaming": {
        "chunk_len": integer(1, MAX_FRAMES), "chunk_left_context": _FRAMES, "chunk_right_context": _FRAMES,
        "fifo_len": _FRAMES, "spkcache_update_period": integer(1, 2 * MAX_FRAMES), "spkcache_len": _FRAMES,
    },
}  # fmt: skip
"""Every key with its check."""


def read_config(settings: Settings) -> SortformerConfig:
    """Read the configuration that ``SORTFORMER_CONFIG`` and ``MODEL_CONFIG_DIR`` select.

    Raises:
        ConfigurationError: If the file is missing, cannot be read or is invalid. The message names the file and the
            key.
    """
    path = find_config(settings, "sortformer", settings.sortformer_config, "SORTFORMER_CONFIG")
    values = ConfigFile(path, SCHEMA).values
    binarization, streaming = (
        {key: values[f"{section}.{key}"] for key in SCHEMA[section] if f"{section}.{key}" in values}
        for section in ("parameters", "streaming")
    )
    return SortformerConfig(Binarization(**binarization), StreamingConfig(**streaming))
