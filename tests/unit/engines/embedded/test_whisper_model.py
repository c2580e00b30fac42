"""Tests of loading Whisper models of other shapes than base, with random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from faster_whisper import WhisperModel

from diarist.engines.device import CPU
from diarist.engines.embedded.whisper import DecodingOptions
from diarist.engines.embedded.whisper_device import open_model
from diarist.engines.embedded.whisper_model import WhisperShape, load_whisper, read_shape
from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.languages import WHISPER_LANGUAGES, WHISPER_V3_LANGUAGES
from support import random_whisper_models as models

V3 = models.WhisperShape(32, 4, 3, 2, bands=128, version=3)


def load(folder: Path, languages: Sequence[str]) -> WhisperModel:
    opened, _ = load_whisper(folder, languages, lambda _shape: open_model(folder, CPU, threads=1, batch_size=1))
    return opened.model


@pytest.fixture
def v3(tmp_path) -> Path:
    return models.save_whisper(tmp_path / "v3", V3, models.random_words(3), quantization="int8")


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("quantization", ["int8", "float16"])
def test_the_shape_is_read_from_the_file(tmp_path, bands, quantization):
    made = models.WhisperShape(48, 6, 12, 3, bands=bands)
    folder = models.save_whisper(tmp_path / "model", made, models.random_words(3), quantization=quantization)
    assert read_shape(folder / "model.bin") == WhisperShape(bands, 48, 12, 3)


@pytest.mark.models
def test_the_shape_of_base_is_read_from_the_published_file(model_store):
    assert read_shape(model_store.locate("whisper-base") / "model.bin") == WhisperShape(80, 512, 6, 6)


def test_a_file_that_is_no_whisper_model_is_refused(v3, tmp_path):
    path = tmp_path / "model.bin"
    for content in (b"", b"\x06\0\0\0", b"PK\x03\x04" * 500, (v3 / "model.bin").read_bytes()[:3000]):
        path.write_bytes(content)
        with pytest.raises(ModelCorrupt, match="not a Whisper model"):
            read_shape(path)


def test_a_model_of_128_bands_without_its_configuration_is_refused(v3):
    assert len(load(v3, WHISPER_V3_LANGUAGES).feature_extractor.mel_filters) == 128
    path = v3 / "preprocessor_config.json"
    path.write_text(json.dumps({"feature_size": 80}), encoding="utf-8")
    with pytest.raises(ModelCorrupt, match=r"has 128 mel bands, but .* states 80"):
        load(v3, ["en"])
    path.unlink()
    with pytest.raises(ModelUnavailable, match=r"preprocessor_config\.json is missing"):
        load(v3, ["en"])


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(v3, name):
    (v3 / name).unlink()
    with pytest.raises(ModelUnavailable, match=name):
        load(v3, ["en"])


def test_a_model_without_alignment_heads_is_refused(v3):
    path = v3 / "config.json"
    config = json.loads(path.read_text())
    del config["alignment_heads"]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelCorrupt, match="alignment_heads"):
        load(v3, ["en"])


def test_a_language_without_a_token_is_refused(tmp_path):
    folder = models.save_whisper(tmp_path / "v2", replace(V3, version=1), models.random_words(3), quantization="int8")
    load(folder, WHISPER_LANGUAGES)
    with pytest.raises(ModelCorrupt, match="yue"):
        load(folder, WHISPER_V3_LANGUAGES)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (models.BASE, 8), (models.SMALL, 5), (models.MEDIUM, 2), (models.LARGE_V3, 1), (models.LARGE_V3_TURBO, 8),
        (models.DISTIL_LARGE_V3, 8),
    ],
)  # fmt: skip
def test_large_models_decode_fewer_windows_at_once(shape, size):
    own = WhisperShape(shape.bands, shape.d_model, shape.encoder_layers, shape.decoder_layers)
    options = DecodingOptions(beam_size=5)
    assert own.batch_size(options.batch_size, options.max_input, options.beam_size) == size
    assert own.batch_size(1, options.max_input, options.beam_size) == 1


def test_a_window_has_the_keys_and_values_of_all_layers():
    shape = WhisperShape(128, 1280, 32, 32)
    frames, tokens = 1500, 5 * 224
    assert shape.decoding_bytes(30.0, 5) == 32 * 2 * 1280 * 4 * (frames + tokens)


def test_the_encoder_has_a_larger_share_of_the_time_than_a_shorter_decoder():
    assert WhisperShape(80, 512, 6, 6).encoder_share == pytest.approx(0.45)
    assert 0.8 < WhisperShape(128, 1280, 32, 4).encoder_share < WhisperShape(128, 1280, 32, 2).encoder_share < 1


@pytest.mark.models
@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="this system does not count what a process reads")
def test_no_file_is_read_twice(model_store):
    def read_bytes() -> int:
        return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])

    folder = model_store.locate("whisper-base")
    before = read_bytes()
    load(folder, WHISPER_LANGUAGES)
    assert read_bytes() - before < 1.1 * sum(path.stat().st_size for path in folder.iterdir())
