"""PLDA: its parameters, its projection, and the covariances that features have."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.clustering.plda import Plda
from support.random_plda import plda_parameters


def spread(random, count):
    """Return a random covariance."""
    root = random.standard_normal((count, count))
    return root @ root.T / count + 0.1 * np.eye(count)


def diagonalize(within, between):
    """Return what Kaldi stores: the transform that makes both covariances diagonal, and the diagonal."""
    root = np.linalg.inv(np.linalg.cholesky(within))
    psi, vectors = np.linalg.eigh(root @ between @ root.T)
    return vectors.T @ root, psi


def test_the_transform_makes_the_covariances_the_identity_and_psi():
    random = np.random.default_rng(0)
    within, between = spread(random, 12), spread(random, 12)
    tr, psi = diagonalize(within, between)
    # BUT and pyannote restore the covariances from the file, and solve the generalized eigenproblem again.
    restored_within = np.linalg.inv(tr.T @ tr)
    restored_between = np.linalg.inv((tr.T / psi) @ tr)
    np.testing.assert_allclose(restored_within, within, atol=1e-9)
    np.testing.assert_allclose(restored_between, between, atol=1e-9)
    again, values = diagonalize(restored_within, restored_between)
    np.testing.assert_allclose(values, psi, atol=1e-9)
    np.testing.assert_allclose(np.abs(again), np.abs(tr), atol=1e-7)


def test_the_projection_is_that_of_the_formulas():
    parameters = plda_parameters()
    embeddings = np.random.default_rng(1).standard_normal((5, 256)).astype(np.float32)
    features = Plda.of(**parameters).project(embeddings)
    for row, embedding in zip(features, embeddings, strict=True):
        vector = embedding - parameters["mean1"]
        vector = np.sqrt(256) * vector / np.linalg.norm(vector)
        vector = parameters["lda"].T.astype(np.float64) @ vector - parameters["mean2"]
        vector = np.sqrt(128) * vector / np.linalg.norm(vector)
        np.testing.assert_allclose(row, parameters["tr"] @ (vector - parameters["mu"]), atol=1e-10)


def test_the_length_of_an_embedding_does_not_matter_without_a_mean():
    parameters = plda_parameters() | {"mean1": np.zeros(256)}
    plda = Plda.of(**parameters)
    embeddings = np.random.default_rng(2).standard_normal((4, 256))
    np.testing.assert_allclose(plda.project(embeddings), plda.project(embeddings * 7.5), atol=1e-10)


def test_an_embedding_of_zeros_gives_numbers():
    plda = Plda.of(**(plda_parameters() | {"mean1": np.zeros(256), "mean2": np.zeros(128)}))
    assert np.isfinite(plda.project(np.zeros((1, 256)))).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"lda": np.zeros(256)},
        {"mean1": np.zeros(255)},
        {"mean2": np.zeros(127)},
        {"mu": np.zeros((128, 1))},
        {"tr": np.zeros((128, 127))},
        {"psi": np.zeros(64)},
        {"psi": np.full(128, np.nan)},
        {"psi": np.full(128, -1.0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_parameters_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="the parameters of the PLDA"):
        Plda.of(**(plda_parameters() | changes))
