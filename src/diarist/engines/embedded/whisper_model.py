"""Loading of Whisper in CTranslate2's format, and what follows from the shape of the model."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from faster_whisper import WhisperModel

from diarist.engines.embedded.whisper_device import OpenedModel
from diarist.errors import ModelCorrupt, ModelUnavailable

ENCODER_FRAMES_PER_SECOND = 50
FLOAT32_BYTES = 4

MAX_DECODED_TOKENS = 224
"""The maximum number of tokens of one window: CTranslate2 stops at half of Whisper's 448 positions."""

BATCH_BYTES = 2**30
"""The memory that the keys and values of one batch may take; with everything else, a batch takes a third more."""

ENCODER_SHARE = 0.45
"""The share of the encoder in the time of recognition, if the encoder and the decoder have equally many layers."""

MODEL_FILES = ("model.bin", "config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """The dimensions of a Whisper model."""

    bands: int
    """The number of mel bands of its features."""

    d_model: int
    """The number of values of each frame and each token."""

    encoder_layers: int
    decoder_layers: int

    def decoding_bytes(self, seconds: float, beam_size: int) -> int:
        """Return the memory that the keys and values of one window of this length take while it is decoded.

        Every layer has those of the encoder's frames, which all hypotheses share, and those of each hypothesis' tokens.
        """
        positions = round(seconds * ENCODER_FRAMES_PER_SECOND) + beam_size * MAX_DECODED_TOKENS
        return 2 * FLOAT32_BYTES * self.decoder_layers * self.d_model * positions

    @property
    def encoder_share(self) -> float:
        """The share of the encoder in the time of recognition, by the numbers of layers."""
        encoder, decoder = ENCODER_SHARE * self.encoder_layers, (1 - ENCODER_SHARE) * self.decoder_layers
        return encoder / (encoder + decoder)

    def batch_size(self, max_size: int, seconds: float, beam_size: int) -> int:
        """Return the number of windows to decode at once: as many as fit into ``BATCH_BYTES``, up to ``max_size``.

        It does not depend on the machine, so that the words do not either.
        """
        return max(1, min(max_size, BATCH_BYTES // self.decoding_bytes(seconds, beam_size)))


def load_whisper(
    folder: Path, languages: Sequence[str], open_model: Callable[[WhisperShape], OpenedModel]
) -> tuple[OpenedModel, WhisperShape]:
    """Load the model in ``folder`` and return it with its shape. All workers share its weights.

    Args:
        folder: The files of a model as they are published.
        languages: The languages that the model is expected to support.
        open_model: Loads the model on its device.

    Raises:
        ModelUnavailable: A file is missing.
        ModelCorrupt: The files do not belong together, or are not a model that can be used.
        EngineUnavailable: The device cannot be used, or its memory is too small.
    """
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise ModelUnavailable(f"{folder / name} is missing. Run: diarist models pull")
    if not json.loads((folder / "config.json").read_bytes()).get("alignment_heads"):
        raise ModelCorrupt(f"{folder / 'config.json'} has no alignment_heads, so words would have no times.")
    shape = read_shape(folder / "model.bin")
    opened = open_model(shape)
    model = opened.model
    _check_bands(folder, model, shape)
    tokens = [f"<|{language}|>" for language in languages] if model.model.is_multilingual else []
    unknown = [token for token in tokens if model.hf_tokenizer.token_to_id(token) is None]
    if unknown:
        raise ModelCorrupt(f"The tokenizer in {folder} has no token for some of the model's languages: {unknown}.")
    return opened, shape


def _check_bands(folder: Path, model: WhisperModel, shape: WhisperShape) -> None:
    """Check that the features have the number of bands that the model was trained with; without the file it is 80."""
    bands = len(model.feature_extractor.mel_filters)
    if bands == shape.bands:
        return
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ModelUnavailable(f"{path} is missing. The model needs it, because it has {shape.bands} mel bands.")
    raise ModelCorrupt(f"The model in {folder} has {shape.bands} mel bands, but {path.name} states {bands}.")


def read_shape(path: Path) -> WhisperShape:
    """Read the shape of a model from the names and the dimensions of its variables, without reading the weights.

    Args:
        path: ``model.bin`` in CTranslate2's format.

    Raises:
        ModelCorrupt: The file is not a Whisper model in that format.
    """
    try:
        with path.open("rb") as file:
            variables = _read_variables(file)
        d_model, bands, _ = variables["encoder/conv1/weight"]
    except (KeyError, ValueError, UnicodeDecodeError, struct.error) as error:
        raise ModelCorrupt(f"{path} is not a Whisper model in CTranslate2's format: {error}") from error
    return WhisperShape(bands, d_model, _count_layers(variables, "encoder"), _count_layers(variables, "decoder"))


_MIN_BINARY_VERSION = 4
"""The first version of the format in which a variable has its type and its number of bytes."""


def _read_variables(file: BinaryIO) -> Mapping[str, tuple[int, ...]]:
    """Return the dimensions of each variable (``ctranslate2.specs.model_spec.ModelSpec._serialize`` writes them)."""
    version = _read(file, "I")
    if version < _MIN_BINARY_VERSION:
        raise ValueError(f"version {version} of the format is too old")
    _read_string(file)
    _read(file, "I")
    variables: dict[str, tuple[int, ...]] = {}
    for _ in range(_read(file, "I")):
        name = _read_string(file)
        variables[name] = tuple(_read(file, "I") for _ in range(_read(file, "B")))
        _read(file, "B")
        file.seek(_read(file, "I"), 1)
    return variables


def _read(file: BinaryIO, form: str) -> int:
    (value,) = struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
    return int(value)


def _read_string(file: BinaryIO) -> str:
    return file.read(_read(file, "H")).rstrip(b"\0").decode()


def _count_layers(variables: Iterable[str], part: str) -> int:
    layer = re.compile(rf"{part}/layer_(\d+)/")
    return len({match[1] for name in variables if (match := layer.match(name))})
