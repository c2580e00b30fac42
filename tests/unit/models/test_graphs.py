"""The graphs against PyTorch: by numbers that it gave once, and by itself where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from diarist.models import ModelStore
from diarist.models.campplus_graph import build_campplus
from diarist.models.resnet34_graph import VALUES, build_resnet34, frame_count
from diarist.models.segmentation_graph import build_segmentation
from unit.models import weights
from unit.models.write_reference import EVERY, FRAMES, SAMPLES

REFERENCE = Path(__file__).with_name("reference.npz")
SCORES_APART = 2e-4
"""Most that logarithms of probabilities may differ; probabilities then differ by less than that."""

VALUES_APART = 3e-5
"""Most that values of an embedding may differ, as a share of the largest: float32 sums of a thousand terms."""

Run = Callable[[np.ndarray], np.ndarray]


def session(model: bytes | str) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runner = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in runner.get_inputs())
    return lambda array: runner.run(None, {name: array})[0]


@cache
def made_up_segmentation() -> Run:
    return session(build_segmentation(weights.segmentation_weights()).SerializeToString())


@cache
def made_up_campplus() -> Run:
    return session(build_campplus(weights.campplus_weights()).SerializeToString())


@pytest.fixture(scope="module")
def reference() -> Mapping[str, np.ndarray]:
    with np.load(REFERENCE) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    pytest.importorskip("torch")
    from unit.models import torch_networks

    return torch_networks


def check_scores(run: Run, expected: np.ndarray) -> None:
    scores = run(weights.samples(SAMPLES))
    assert scores.shape == (2, 589, 7)
    np.testing.assert_allclose(np.exp(scores).sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(scores[:, ::EVERY], expected, atol=SCORES_APART)
    assert expected.std(axis=(0, 1)).max() > 100 * SCORES_APART, "the reference hardly depends on the input"


def check_embedding(run: Run, frames: int, expected: np.ndarray) -> None:
    embedding = run(weights.features(frames))
    assert embedding.shape == (2, 192)
    check_values(embedding, expected)
    assert np.abs(expected[0] - expected[1]).mean() > 100 * VALUES_APART, "the reference hardly depends on the input"


def check_values(embedding: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=VALUES_APART * np.abs(expected).max())


def test_segmentation_of_made_up_weights(reference: Mapping[str, np.ndarray]) -> None:
    check_scores(made_up_segmentation(), reference["made_up_scores"])


@pytest.mark.parametrize("frames", FRAMES)
def test_campplus_of_made_up_weights(reference: Mapping[str, np.ndarray], frames: int) -> None:
    check_embedding(made_up_campplus(), frames, reference[f"made_up_embedding_{frames}"])


@pytest.mark.models
def test_segmentation_of_the_real_weights(model_store: ModelStore, reference: Mapping[str, np.ndarray]) -> None:
    check_scores(session(str(model_store.locate("segmentation-3.0"))), reference["real_scores"])


@pytest.mark.models
@pytest.mark.parametrize("frames", FRAMES)
def test_campplus_of_the_real_weights(
    model_store: ModelStore, reference: Mapping[str, np.ndarray], frames: int
) -> None:
    check_embedding(session(str(model_store.locate("campplus"))), frames, reference[f"real_embedding_{frames}"])


@pytest.mark.parametrize("count", [3_000, 16_001, 80_000, 159_999])
def test_segmentation_takes_any_length(count: int) -> None:
    frames = (count - 251) // 10 + 1
    frames = (frames // 3 - 4) // 3
    frames = (frames - 4) // 3
    assert made_up_segmentation()(weights.samples(count)).shape == (2, frames, 7)


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    samples, features = weights.samples(32_000, batch=3), weights.features(120, batch=3)
    for run, batch in ((made_up_segmentation(), samples), (made_up_campplus(), features)):
        together = run(batch)
        for row in range(3):
            np.testing.assert_allclose(run(batch[row : row + 1])[0], together[row], atol=1e-4)


def test_silence_and_full_scale_give_numbers() -> None:
    for level in (0.0, 1.0):
        assert np.isfinite(made_up_segmentation()(np.full((1, 1, 16_000), level, dtype=np.float32))).all()
    assert np.isfinite(made_up_campplus()(np.zeros((1, 50, 80), dtype=np.float32))).all()


@pytest.mark.parametrize("count", [16_000, 48_123])
def test_segmentation_equals_torch(networks: ModuleType, count: int) -> None:
    samples = weights.samples(count)
    expected = networks.segmentation(weights.segmentation_weights(), samples)
    np.testing.assert_allclose(made_up_segmentation()(samples), expected, atol=SCORES_APART)


# The mask works in segments of 100 frames after the stride of 2: below, at and above their edges.
@pytest.mark.parametrize("frames", [3, 20, 148, 199, 200, 201, 202, 399, 401, 998])
def test_campplus_equals_torch(networks: ModuleType, frames: int) -> None:
    features = weights.features(frames)
    expected = networks.campplus(weights.campplus_weights(), features)
    check_values(made_up_campplus()(features), expected)


@cache
def made_up_resnet34(channels: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    model = build_resnet34(weights.resnet34_weights(channels=channels)).SerializeToString()
    runner = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda rows, activity: runner.run(None, {"features": rows, "weights": activity})[0]


def speaking(rows: int, batch: int = 2) -> np.ndarray:
    """Frames of three speakers: all of them, the first half, and every third one."""
    activity = np.zeros((batch, 3, frame_count(rows)), dtype=np.float32)
    activity[:, 0] = 1
    activity[:, 1, : (frame_count(rows) + 1) // 2] = 1
    activity[:, 2, ::3] = 1
    return activity


# One frame of the network has 8 rows: below, at and above the edges, and the 998 rows of a window of ten seconds.
@pytest.mark.parametrize(("channels", "rows"), [(32, 998), (32, 147), (4, 998), (4, 1), (4, 8), (4, 9), (4, 200)])
def test_resnet34_equals_torch(networks: ModuleType, channels: int, rows: int) -> None:
    features, activity = weights.features(rows), speaking(rows)
    expected = networks.resnet34(weights.resnet34_weights(channels=channels), features, activity)
    embedding = made_up_resnet34(channels)(features, activity)
    assert embedding.shape == (2, 3, VALUES)
    check_values(embedding, expected)
    if rows > 100:
        apart = np.abs(expected[:, 0] - expected[:, 1]).mean()
        assert apart > 100 * VALUES_APART * np.abs(expected).max(), "the reference hardly depends on the weights"


def test_resnet34_of_a_speaker_who_is_silent_or_speaks_in_one_frame_gives_numbers() -> None:
    activity = np.zeros((2, 2, frame_count(200)), dtype=np.float32)
    activity[:, 1, 7] = 1
    embedding = made_up_resnet34(4)(weights.features(200), activity)
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(
        embedding[:, 0], weights.resnet34_weights(channels=4)["resnet.seg_1.bias"][None].repeat(2, 0)
    )


def test_the_speakers_of_resnet34_do_not_touch_each_other() -> None:
    rows, activity = weights.features(200), speaking(200)
    together = made_up_resnet34(4)(rows, activity)
    for speaker in range(3):
        alone = made_up_resnet34(4)(rows, activity[:, speaker : speaker + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, speaker], atol=1e-5 * np.abs(together).max())
