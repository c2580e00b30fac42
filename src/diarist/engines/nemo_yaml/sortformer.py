"""The configuration of Sortformer: ``sortformer_*.yaml``, found, read and checked.

NeMo's own post-processing files have ``parameters`` alone and work as they are; what they leave out is 0.5 for a
threshold and 0 for a duration, as with NeMo. No PyTorch here.
"""

from __future__ import annotations

from dataclasses import dataclass

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.validation import ConfigFile, Schema, find_config, number, whole
from diarist.settings import Settings


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """How a streaming model reads, in its frames of 80 ms. The names are those of NeMo's ``SortformerModules``.

    The defaults are what the model's page calls very high latency, the most accurate setting.
    """

    chunk_len: int = 340
    """Frames judged at a time."""

    chunk_left_context: int = 1
    """Frames before them that their features see."""

    chunk_right_context: int = 40
    """Frames after them that are heard with them."""

    fifo_len: int = 40
    """Frames judged last that are heard again as they are."""

    spkcache_update_period: int = 300
    """Frames that move on into the speakers' memory at a time; NeMo takes at least a chunk."""

    spkcache_len: int = 188
    """Frames in which all speakers are remembered."""


@dataclass(frozen=True, slots=True)
class SortformerConfig:
    """What a ``sortformer_*.yaml`` says."""

    rule: Binarization
    streaming: StreamingConfig


MAX_FRAMES = 2_000
"""Of 80 ms, 160 s: memory grows with the square of what is heard at once."""

_FRAMES = whole(0, MAX_FRAMES)

SCHEMA: Schema = {
    "parameters": {
        "onset": number(0, 1), "offset": number(0, 1), "pad_onset": number(-10, 10), "pad_offset": number(-10, 10),
        "min_duration_on": number(0, 60), "min_duration_off": number(0, 60),
    },
    "streaming": {
        "chunk_len": whole(1, MAX_FRAMES), "chunk_left_context": _FRAMES, "chunk_right_context": _FRAMES,
        "fifo_len": _FRAMES, "spkcache_update_period": whole(1, 2 * MAX_FRAMES), "spkcache_len": _FRAMES,
    },
}  # fmt: skip
"""Every key, with what checks it."""


def read_config(settings: Settings) -> SortformerConfig:
    """What ``SORTFORMER_CONFIG`` and ``MODEL_CONFIG_DIR`` name.

    Raises:
        ConfigurationError: it is not there, cannot be read, or holds what cannot be; the message names file and key.
    """
    path = find_config(settings, "sortformer", settings.sortformer_config, "SORTFORMER_CONFIG")
    values = ConfigFile(path, SCHEMA).values
    rule, streaming = (
        {key: values[f"{section}.{key}"] for key in SCHEMA[section] if f"{section}.{key}" in values}
        for section in ("parameters", "streaming")
    )
    return SortformerConfig(Binarization(**rule), StreamingConfig(**streaming))
