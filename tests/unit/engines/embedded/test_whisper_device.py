"""Tests of Whisper's numeric type and batch size on GPUs of all sizes, and of a GPU that cannot take the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from diarist.audio import DecodeLimits, decode
from diarist.engines.cuda_driver import DriverError
from diarist.engines.device import COREML, Device
from diarist.engines.embedded import whisper_device
from diarist.engines.embedded.whisper import DecodingOptions, WhisperRecognizer
from diarist.engines.embedded.whisper_device import MAX_GPU_BATCH, compute_type, gpu_batch_size, open_model
from diarist.errors import EngineUnavailable
from diarist.settings import load_settings
from diarist.types import Span

GB = 10**9
BASE, TURBO, LARGE = 145 * 10**6, int(1.62 * GB), int(3.09 * GB)
ALL = {"float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"}
PASCAL = {"float32", "int8", "int8_float32"}
"""What CTranslate2 supports on GPUs without fast float16."""

GPU = Device("cuda", 1, "cuda:1 (NVIDIA Small)")


@pytest.mark.parametrize(
    ("supported", "weights", "free", "expected"),
    [
        (ALL, BASE, 2 * GB, "float16"),
        (ALL, TURBO, 4 * GB, "float16"),
        (ALL, TURBO, 3 * GB, "int8_float16"),
        (ALL, LARGE, 24 * GB, "float16"),
        (ALL, LARGE, 5 * GB, "int8_float16"),
        (PASCAL, BASE, 24 * GB, "int8_float32"),
        ({"float32", "float16"}, LARGE, 3 * GB, "float16"),
        ({"float32"}, BASE, 24 * GB, "float32"),
    ],
)
def test_float16_unless_the_gpu_is_too_small_or_too_old(supported, weights, free, expected):
    assert compute_type(supported, weights, free) == expected


@pytest.mark.parametrize(
    ("weights", "free", "expected"),
    [
        (BASE, 23 * GB, MAX_GPU_BATCH),
        (LARGE, 20 * GB, 15),
        (LARGE, 4 * GB, 2),
        (LARGE, GB // 2, 1),
        (LARGE, 0, 1),
        (TURBO, 140 * GB, MAX_GPU_BATCH),
    ],
)
def test_the_batch_size_follows_the_free_memory(weights, free, expected):
    assert gpu_batch_size(weights, free) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "whisper-tiny").mkdir()
    (tmp_path / "whisper-tiny" / "model.bin").write_bytes(bytes(1_000))
    return tmp_path / "whisper-tiny"


@pytest.fixture
def loaded(monkeypatch) -> list[dict[str, object]]:
    """The arguments with which models are loaded on a GPU with 8 GB."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(whisper_device, "free_memory", lambda _index: 8 * GB)
    monkeypatch.setattr(whisper_device, "get_supported_compute_types", lambda _kind, _index: ALL)
    monkeypatch.setattr(
        whisper_device, "WhisperModel", lambda path, **options: calls.append(options) or SimpleNamespace(path=path)
    )
    return calls


def test_a_gpu_has_one_worker_and_its_own_index(folder, loaded):
    opened = open_model(folder, GPU, threads=8, batch_size=8)
    assert loaded == [{"device": "cuda", "device_index": 1, "compute_type": "float16", "num_workers": 1}]
    assert (opened.workers, opened.limit.batch_size) == (1, MAX_GPU_BATCH)


def test_core_ml_leaves_whisper_on_the_cpu(folder, loaded):
    opened = open_model(folder, COREML, threads=4, batch_size=8)
    assert loaded == [{"device": "cpu", "compute_type": "int8", "cpu_threads": 2, "num_workers": 2}]
    assert (opened.workers, opened.limit.batch_size) == (2, 8)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA failed with error out of memory"), "whisper-tiny does not fit into the memory of cuda:1"),
        (RuntimeError("Library libcublas.so.12 is not found"), "cannot be loaded on cuda:1 .*libcublas.so.12"),
        (DriverError("NVIDIA's driver fails in cuMemGetInfo_v2 (error 2)"), "cannot be loaded on cuda:1 .*error 2"),
    ],
)
def test_a_gpu_that_fails_is_an_error_that_names_it(folder, loaded, monkeypatch, error, message):
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(whisper_device, "WhisperModel", fail)
    with pytest.raises(EngineUnavailable, match=message + ".*DEVICE to another device"):
        open_model(folder, GPU, threads=1, batch_size=8)


@pytest.mark.models
def test_a_recording_is_recognized_although_memory_runs_out(model_store, sample_recording, tmp_path):
    (audio,) = decode(sample_recording, DecodeLimits.of(load_settings(), tmp_path))
    options = DecodingOptions(beam_size=1, max_chunk=6.0)
    recognizer = WhisperRecognizer(model_store.locate("whisper-base"), 1, options, languages=["en"])
    decode_batch, sizes = recognizer._decode_batch, []

    def scarce(audio, spans, *others):
        sizes.append(len(spans))
        if len(spans) > 1:
            raise RuntimeError("CUDA failed with error out of memory")
        return decode_batch(audio, spans, *others)

    recognizer._decode_batch = scarce
    speech = (Span(6.0, 12.0), Span(14.0, 20.0), Span(21.0, 27.0))
    words = recognizer.recognize(audio, speech, "en", lambda _stage, _done: None).words
    assert max(sizes) == 2
    assert recognizer._limit.batch_size == 1
    assert {int(word.span.start) // 7 for word in words} >= {1, 2, 3}, "every window has words"
