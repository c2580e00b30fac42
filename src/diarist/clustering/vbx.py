"""VBx: Bayesian clustering of embeddings with speakers that a PLDA model describes.

Landini et al., "Bayesian HMM clustering of x-vector sequences (VBx) in speaker diarization: theory, implementation and
analysis on standard tasks" (2022, arXiv 2012.14952); the numbers of equations are those of this paper. As in
pyannote.audio 4, there is no hidden Markov model: windows are independent, which makes it a Bayesian mixture model.

Each speaker has a mean with a Gaussian prior. The algorithm alternates between the posterior of the means (equations 16
and 17), the probability of each speaker for each window, and the weights of the speakers. Each step maximizes a lower
bound of the likelihood. A speaker who is not needed to explain the windows loses its weight, so that the number of
speakers follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.clustering.embeddings import Labels
from diarist.clustering.plda import Vectors

_BLOCK_WINDOWS = 1_024
"""The number of windows whose probabilities of all speakers exist at the same time."""


@dataclass(frozen=True, slots=True)
class VbxParameters:
    """The parameters, with the values that pyannote published for ``pyannote/speaker-diarization-community-1``.

    They belong to embeddings of windows of ten seconds with a step of one: the statistics of a window count as less
    than one window because its neighbors share most of its sound.
    """

    statistics_scale: float = 0.07
    """The factor of the statistics of windows, called F_A in the paper."""

    speaker_regularization: float = 0.8
    """The factor of the prior of speakers, called F_B in the paper: a larger one leads to fewer speakers."""

    initial_smoothing: float = 7.0
    """The logarithm of how much more probable the initial speaker of a window is than each other one."""

    max_iterations: int = 20
    tolerance: float = 1e-4
    """The increase of the bound below which the iterations stop."""

    min_weight: float = 1e-7
    """A speaker with a lower weight does not exist."""


@dataclass(frozen=True, slots=True, eq=False)
class VbxResult:
    """The speakers that are left."""

    probability: Vectors
    """The probability of each speaker for each window, (windows, speakers)."""

    bounds: tuple[float, ...]
    """The lower bound of the log-likelihood after each iteration; it never falls."""


@dataclass(frozen=True, slots=True, eq=False)
class _Speakers:
    """The posterior of the means of speakers, and their weights."""

    mean: Vectors
    """The posterior mean, (speakers, features), called alpha in the paper."""

    variance: Vectors
    """The posterior variance, (speakers, features): the inverse of L."""

    log_weight: Vectors
    """The logarithm of the weight of each speaker, (speakers,)."""


def vbx(features: Vectors, between: Vectors, initial: Labels, parameters: VbxParameters = VbxParameters()) -> VbxResult:
    """Return the speakers of the windows.

    Args:
        features: The features of the windows by ``Plda.project``, (windows, features); at least one window.
        between: The variances of the means of speakers, (features,).
        initial: The speaker of each window to begin with, (windows,): 0, 1 ... without a gap. There are never more
            speakers in the result.
        parameters: The parameters of the algorithm.
    """
    scale, prior = parameters.statistics_scale, parameters.speaker_regularization
    scaled = features * np.sqrt(between)
    constant = -0.5 * ((features**2).sum(axis=1) + features.shape[1] * np.log(2 * np.pi))
    occupancy, first_order = _initial_statistics(scaled, initial, parameters.initial_smoothing)
    weight = np.full(len(occupancy), 1 / len(occupancy))
    bounds: list[float] = []
    for _ in range(parameters.max_iterations):
        variance = 1 / (1 + scale / prior * np.outer(occupancy, between))  # (17)
        mean = scale / prior * variance * first_order  # (16)
        speakers = _Speakers(mean, variance, np.log(np.maximum(weight, np.finfo(np.float64).tiny)))
        bound = prior / 2 * float((np.log(variance) - variance - mean**2 + 1).sum())
        occupancy, first_order = np.zeros_like(occupancy), np.zeros_like(first_order)
        for rows, probability, log_likelihood in _expectation(scaled, constant, between, speakers, scale):
            bound += float(log_likelihood.sum())
            occupancy += probability.sum(axis=0)
            first_order += probability.T @ scaled[rows]
        bounds.append(bound)  # (25)
        weight = occupancy / len(features)
        if len(bounds) > 1 and bounds[-1] - bounds[-2] < parameters.tolerance:
            break
    kept = np.flatnonzero(weight > parameters.min_weight)
    expectation = _expectation(scaled, constant, between, speakers, scale)
    return VbxResult(np.concatenate([probability[:, kept] for _, probability, _ in expectation]), tuple(bounds))


def _initial_statistics(scaled: Vectors, labels: Labels, smoothing: float) -> tuple[Vectors, Vectors]:
    """Return the number of windows and the sum of the scaled features of each speaker.

    A window belongs to its own speaker by ``exp(smoothing)`` times as much as to each other one. The shapes are
    (speakers,) and (speakers, features).
    """
    count = int(labels.max()) + 1
    other = 1 / (np.exp(smoothing) + count - 1)
    own = np.exp(smoothing) * other
    size = np.bincount(labels, minlength=count)
    total = np.zeros((count, scaled.shape[1]))
    np.add.at(total, labels, scaled)
    return other * len(labels) + (own - other) * size, other * scaled.sum(axis=0) + (own - other) * total


def _expectation(
    scaled: Vectors, constant: Vectors, between: Vectors, speakers: _Speakers, scale: float
) -> Iterator[tuple[slice, Vectors, NDArray[np.float64]]]:
    """Yield blocks of windows with the probability of each speaker, (windows, speakers), and their log-likelihoods."""
    offset = -0.5 * (speakers.variance + speakers.mean**2) @ between
    for start in range(0, len(scaled), _BLOCK_WINDOWS):
        rows = slice(start, start + _BLOCK_WINDOWS)
        score = scaled[rows] @ speakers.mean.T
        score += offset
        score += constant[rows, None]
        score *= scale  # (23)
        score += speakers.log_weight
        highest = score.max(axis=1, keepdims=True)
        score -= highest
        probability = np.exp(score, out=score)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        yield rows, probability, (highest + np.log(total))[:, 0]
