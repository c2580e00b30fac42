# ruff: noqa: T201 - the figures are for whoever runs this on a GPU
"""Whisper and the diarizer on an NVIDIA GPU, compared with the CPU: ``make test-gpu`` on a machine that has one.

The times are printed, since what they should be depends on the GPU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.engines import registry
from diarist.engines.device import choose, describe_machine
from diarist.errors import DiaristError
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import Settings, load_settings
from diarist.types import Audio, Span, TranscribeOptions, Transcript

pytestmark = [pytest.mark.gpu, pytest.mark.models, pytest.mark.slow]

MAX_WORD_DIFFERENCE = 0.08
"""The share of words that may differ: the CPU computes in int8, and the GPU in float16."""

MIN_AGREEMENT = 0.97
"""The share of the recording in which both devices find the same speakers."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    """Skip the tests if a GPU cannot be used, whatever the reason is."""
    for library in ("ctranslate2", "onnxruntime"):
        try:
            choose("cuda", library, describe_machine("cuda"))
        except DiaristError as error:
            pytest.skip(f"no GPU can be used: {error}")


@pytest.fixture(scope="module", params=["base"])
def engines(request: pytest.FixtureRequest, model_store: object) -> dict[str, Engine]:
    return {
        device: registry.load_engine(load_settings(engine="embedded", whisper_model=request.param, device=device))
        for device in ("cpu", "cuda")
    }


def run(engine: Engine, path: Path, settings: Settings) -> tuple[Transcript, float]:
    started = time.perf_counter()
    transcript = transcribe(
        path, engine, TranscribeOptions(language="en"), lambda _stage, _done: None, DecodeLimits.of(settings)
    )
    return transcript, time.perf_counter() - started


def edit_distance(first: list[str], second: list[str]) -> int:
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def speech(transcript: Transcript, duration: float) -> np.ndarray[Any, Any]:
    """Return which speakers are active in each hundredth of a second, (frames, speakers)."""
    speakers = sorted({turn.speaker for turn in transcript.diarization.turns})
    active = np.zeros((round(duration * 100), len(speakers)), dtype=bool)
    for turn in transcript.diarization.turns:
        active[round(turn.span.start * 100) : round(turn.span.end * 100), speakers.index(turn.speaker)] = True
    return active


def test_the_words_and_turns_are_those_of_the_cpu(engines, sample_recording):
    settings = load_settings()
    assert engines["cpu"].device == "cpu"
    assert engines["cuda"].device.startswith("cuda:0 (")
    found = {}
    for device, engine in engines.items():
        run(engine, sample_recording, settings)  # the first run loads kernels
        found[device], took_s = run(engine, sample_recording, settings)
        print(f"{engine.device}: {found[device].duration / took_s:.0f} times real time")
    words = {device: [word.text.lower().strip(".,?!") for word in t.words] for device, t in found.items()}
    different = edit_distance(words["cpu"], words["cuda"])
    print(f"{different} of {len(words['cpu'])} words differ")
    assert different <= MAX_WORD_DIFFERENCE * len(words["cpu"])
    assert found["cuda"].device == engines["cuda"].device
    turns = {device: speech(each, each.duration) for device, each in found.items()}
    assert turns["cpu"].shape == turns["cuda"].shape
    agreement = (turns["cpu"] == turns["cuda"]).all(axis=1).mean()
    print(f"the same speakers in {agreement:.1%} of the recording")
    assert agreement >= MIN_AGREEMENT


def test_the_networks_of_the_diarizer_compute_what_they_compute_on_the_cpu(engines, sample_recording, tmp_path):
    (audio,) = decode(sample_recording, DecodeLimits.of(load_settings(), tmp_path))
    results = {}
    for device, engine in engines.items():
        diarizer: Any = engine.diarizer
        started = time.perf_counter()
        segmentation = diarizer._segmenter.segment(audio, lambda _stage, _done: None)
        windows = [Span(at, at + 1.5) for at in np.arange(0.0, 25.0, 0.75)]
        results[device] = segmentation.activity, diarizer._embedder.embed(audio, windows, lambda _stage, _done: None)
        print(f"{engine.device}: segmentation and embeddings in {time.perf_counter() - started:.2f} s")
    (activity, embeddings), (on_gpu, embeddings_on_gpu) = results["cpu"], results["cuda"]
    assert np.abs(activity - on_gpu).max() < 0.02
    cosine = (embeddings * embeddings_on_gpu).sum(axis=1)
    cosine /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(embeddings_on_gpu, axis=1)
    assert cosine.min() > 0.999


def test_a_long_recording_fits_into_the_memory(engines, sample_recording, tmp_path):
    """An hour: batches are as large as the free memory allows, and are halved where that was too large."""
    (audio,) = decode(sample_recording, DecodeLimits.of(load_settings(), tmp_path))
    hour = Audio(np.tile(audio.samples, 120))
    spans = tuple(Span(start * 30.0 + 6.0, start * 30.0 + 29.0) for start in range(120))
    started = time.perf_counter()
    recognized = engines["cuda"].recognizer.recognize(hour, spans, "en", lambda _stage, _done: None)
    print(f"an hour is recognized in {time.perf_counter() - started:.0f} s")
    assert len(recognized.words) > 120 * 60
