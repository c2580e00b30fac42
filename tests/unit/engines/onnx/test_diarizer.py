"""Tests of clustering over several scales. The tests of the export compare the networks with NeMo."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.clustering import SpeakerBounds, l2_normalize
from diarist.engines.multiscale.diarizer import Scale
from diarist.engines.onnx.diarizer import EmbeddingClusterer


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
