"""Tests of clustering over several scales. The tests of the export compare the networks with NeMo."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from diarist.clustering import SpeakerBounds, l2_normalize
from diarist.engines.multiscale.diarizer import Scale
from diarist.engines.onnx.diarizer import EmbeddingClusterer, OnnxSpeechDetector
from diarist.types import SAMPLE_RATE, Audio


def scales(seconds=120.0, turn=12.0, seed=0, lengths=(1.5, 1.0, 0.5)):
    """Return alternating turns of two speakers in windows of several lengths: shorter windows are noisier."""
    rng = np.random.default_rng(seed)
    speaker_embeddings = l2_normalize(rng.standard_normal((2, 64)).astype(np.float32))
    made = []
    for length in lengths:
        start = np.arange(0.0, seconds - length, length / 2)
        who = ((start + length / 2) // turn).astype(int) % 2
        embeddings = speaker_embeddings[who] + rng.standard_normal((len(start), 64)).astype(np.float32) * 0.05 / length
        made.append(Scale(l2_normalize(embeddings), start, start + length))
    return made, ((made[-1].start + 0.25) // turn).astype(int) % 2


def test_each_window_of_the_shortest_scale_gets_its_speaker():
    heard, who = scales()
    labels = EmbeddingClusterer().label(heard, SpeakerBounds())
    assert labels.dtype == np.int64
    assert labels.shape == who.shape
    assert set(labels) == {0, 1}
    assert np.mean(labels == who) > 0.95


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_an_exact_number_is_met(wanted):
    heard, _ = scales()
    assert len(set(EmbeddingClusterer().label(heard, SpeakerBounds(wanted, wanted)))) == wanted


def test_one_window_is_one_speaker():
    one = Scale(np.eye(1, 8, dtype=np.float32), np.array([1.0]), np.array([1.4]))
    assert EmbeddingClusterer().label([one, one], SpeakerBounds()).tolist() == [0]


def test_a_scale_without_weight_changes_nothing():
    heard, _ = scales(lengths=(1.5, 0.5))
    noise = np.random.default_rng(5).standard_normal(heard[0].unit.shape).astype(np.float32)
    muted = [Scale(l2_normalize(noise), heard[0].start, heard[0].end, 0.0), heard[1]]
    silent = [Scale(np.zeros_like(noise), heard[0].start, heard[0].end, 1.0), heard[1]]
    for bounds in (SpeakerBounds(), SpeakerBounds(2, 2)):
        assert np.array_equal(EmbeddingClusterer().label(muted, bounds), EmbeddingClusterer().label(silent, bounds))


def test_digital_silence_is_not_scored():
    scored = []

    class Session:
        def run(self, _names, inputs):
            frames = -(-inputs["audio_signal"].shape[2] // 2)
            scored.append(frames)
            return [np.tile(np.array([0.0, 80.0], dtype=np.float32), (1, frames, 1))]

    features = SimpleNamespace(
        settings=SimpleNamespace(hop=0.01, hop_samples=160),
        frames=lambda samples: samples // 160 + 1,
        statistics=lambda _samples: (0.0, 1.0),
        raw=lambda _samples, first, stop: np.zeros((stop - first, 4), dtype=np.float32),
    )
    detector = OnnxSpeechDetector(Session(), features, 0.02, block=100, context=10)
    samples = np.zeros(60 * SAMPLE_RATE, dtype=np.float32)
    samples[: SAMPLE_RATE // 2] = samples[-SAMPLE_RATE // 2 :] = 0.5
    reports = []
    found = detector.probability(Audio(samples), lambda *report: reports.append(report))
    assert len(found) == 3_001
    assert found[:100] == pytest.approx(1.0)
    assert found[2_900:] == pytest.approx(1.0)
    assert not found[100:2_900].any()
    assert len(scored) == 3  # the first, the last, and the frame after the end
    assert reports[-1] == ("segmentation", 1.0)
