"""From embeddings to speakers with VBx, with and without a given number of speakers."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.clustering import Plda, SpeakerBounds, find_speakers, l2_normalize
from support.random_plda import plda_parameters


@pytest.fixture(scope="module")
def plda():
    return Plda.of(**plda_parameters())


def embeddings_of(speakers, per_speaker, seed=0, spread=0.35):
    """Return embeddings of speakers whose voices differ, and the speaker of each."""
    random = np.random.default_rng(seed)
    voices = 3 * np.linalg.qr(random.standard_normal((256, speakers)))[0].T
    labels = np.repeat(np.arange(speakers), per_speaker)
    noise = spread * 3 / np.sqrt(256) * random.standard_normal((len(labels), 256))
    return (voices[labels] + noise).astype(np.float32), labels


def nearest(embeddings, found):
    return np.argmax(l2_normalize(embeddings) @ l2_normalize(found.centers).T, axis=1)


@pytest.mark.parametrize("speakers", range(1, 9))
def test_the_number_of_speakers_is_found(plda, speakers):
    embeddings, labels = embeddings_of(speakers, 40)
    found = find_speakers(embeddings, plda, SpeakerBounds())
    assert not found.forced
    assert found.centers.shape == (speakers, 256)
    assert found.centers.dtype == np.float32
    assert len(set(zip(nearest(embeddings, found).tolist(), labels.tolist(), strict=True))) == speakers


def test_the_centers_are_means_that_are_not_normalized(plda):
    embeddings, _ = embeddings_of(2, 40)
    found = find_speakers(embeddings, plda, SpeakerBounds())
    labels = nearest(embeddings, found)
    for speaker, center in enumerate(found.centers):
        np.testing.assert_allclose(center, embeddings[labels == speaker].mean(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("bounds", "expected", "forced"),
    [
        (SpeakerBounds(3, 3), 3, False),
        (SpeakerBounds(2, 5), 3, False),
        (SpeakerBounds(2, 2), 2, True),
        (SpeakerBounds(1, 2), 2, True),
        (SpeakerBounds(5, None), 5, True),
        (SpeakerBounds(1, 1), 1, True),
    ],
)
def test_the_bounds_are_met(plda, bounds, expected, forced):
    embeddings, _ = embeddings_of(3, 40)
    found = find_speakers(embeddings, plda, bounds)
    assert (len(found.centers), found.forced) == (expected, forced)


def test_more_speakers_than_embeddings_are_as_many_as_there_are(plda):
    embeddings, _ = embeddings_of(2, 2)
    assert len(find_speakers(embeddings, plda, SpeakerBounds(9, 9)).centers) == 4


@pytest.mark.parametrize("count", [1, 2, 30])
def test_identical_embeddings_are_one_speaker(plda, count):
    embeddings, _ = embeddings_of(1, 1)
    found = find_speakers(np.repeat(embeddings, count, axis=0), plda, SpeakerBounds())
    np.testing.assert_allclose(found.centers, embeddings, atol=1e-5)


def test_k_means_sees_a_sample_of_many_embeddings(plda, monkeypatch):
    monkeypatch.setattr("diarist.clustering.vbx_clustering.MAX_SAMPLE", 20)
    embeddings, _ = embeddings_of(3, 50)
    found = find_speakers(embeddings, plda, SpeakerBounds(2, 2))
    assert found.centers.shape == (2, 256)
    assert len(set(nearest(embeddings, found).tolist())) == 2
