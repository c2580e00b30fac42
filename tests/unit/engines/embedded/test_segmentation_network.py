"""Tests that the network in two parts gives the output of the whole graph."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.engines.embedded.segmentation import FRAME_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES
from diarist.engines.embedded.segmentation_network import POOL_SAMPLES, SegmentationNetwork
from diarist.engines.onnx.session import open_graph
from diarist.settings import load_settings

pytestmark = pytest.mark.models

STARTS = [0, 59 * FRAME_SAMPLES, 118 * FRAME_SAMPLES, 400 * FRAME_SAMPLES]


@pytest.fixture(scope="module")
def graph(model_store):
    return model_store.locate("segmentation-3.0")


@pytest.fixture(scope="module")
def samples(sample_recording):
    return decode(sample_recording, DecodeLimits.of(load_settings()), lambda _done: None, "mix")[0].samples


def whole(graph, samples):
    windows = np.stack([samples[start : start + WINDOW_SAMPLES] for start in STARTS])[:, None]
    return np.exp(open_graph(graph, 1).run(None, {"samples": windows})[0])


def parted(graph, samples):
    network = SegmentationNetwork(graph, 1)
    return np.exp(network.score(network.filter(samples), STARTS, WINDOW_SAMPLES))


@pytest.mark.parametrize(
    ("gain", "offset", "within"), [(1.0, 0.0, 1e-4), (0.02, 0.0, 1e-3), (4.0, 0.0, 1e-4), (1.0, 0.2, 1e-3)]
)
def test_probabilities_are_those_of_the_whole_graph(graph, samples, gain, offset, within):
    altered = (samples * np.float32(gain) + np.float32(offset)).astype(np.float32)
    found, expected = parted(graph, altered), whole(graph, altered)
    assert found.shape == expected.shape == (len(STARTS), WINDOW_FRAMES, 7)
    assert np.abs(found - expected).max() < within


def test_silence_is_silence(graph):
    silence = np.zeros(STARTS[-1] + WINDOW_SAMPLES, dtype=np.float32)
    found = parted(graph, silence)
    assert np.isfinite(found).all()
    assert (found.argmax(axis=2) == whole(graph, silence).argmax(axis=2)).all()


def test_every_frame_is_a_place_where_a_window_may_start():
    assert FRAME_SAMPLES % POOL_SAMPLES == 0
