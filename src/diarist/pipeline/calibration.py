"""How sure the answer is: scores to probabilities that come true as often as they say.

Two logistic maps with few constants, fitted on recordings whose speakers are known; ``docs/accuracy.md`` tells on
which, and how well they hold on others. The first is Platt's scaling of a posterior's log-odds ("Probabilistic outputs
for support vector machines", 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.types import Diarization, SpeakerActivity

Floats = NDArray[np.float64]

CALIBRATED_DIARIZER = "embedded"
"""The one diarizer whose numbers of speakers were held against the truth often enough to say how sure they are."""

AUDIBLE = 0.05
"""Frames in which no speaker's activity is above this are silence."""

CONTESTED = 0.7
"""A frame is contested while its first speaker has a smaller share than this of all speakers' activity."""


@dataclass(frozen=True, slots=True)
class WordScaling:
    """From the posterior that a word is a speaker's to the probability of it: a logistic function of two things."""

    constant: float = 0.934
    log_odds: float = 0.552
    """Of the posterior's log-odds: evidence of neighbouring words is not as independent as the posterior takes it."""

    contested: float = -2.294
    """Of the next speaker's share of the activity in the word's frames, 0..1."""

    most: float = 8.0
    """Log-odds beyond this (either way) are worth no more."""


@dataclass(frozen=True, slots=True)
class CountScaling:
    """From the share of contested frames to the probability of the count: a logistic function of its logarithm."""

    constant: float = -1.466
    log_contested: float = -1.076
    least: float = 0.01
    """Added to the share: there is no logarithm of nothing."""


def speaker_probability(posterior: Floats, contested: Floats, scaling: WordScaling = WordScaling()) -> Floats:
    """How probable it is that each word is its speaker's, (words,), within 0..1.

    Args:
        posterior: of each word's speaker among all speakers, 0..1, (words,).
        contested: as ``contested_share`` gives it, (words,).
        scaling: the fitted constants.
    """
    tiny = math.exp(-scaling.most) / 2
    certain = np.clip(posterior, tiny, 1 - tiny)
    log_odds = np.clip(np.log(certain) - np.log1p(-certain), -scaling.most, scaling.most)
    probable: Floats = _logistic(scaling.constant + scaling.log_odds * log_odds + scaling.contested * contested)
    return probable


def contested_share(activity: Floats, speaker: NDArray[np.int64]) -> Floats:
    """How much of the activity of a word's speaker and the strongest other is the other's, 0..1, (words,).

    Args:
        activity: of each speaker in each word's frames, 0..1, (words, speakers).
        speaker: the column of each word's speaker, (words,).
    """
    words = np.arange(len(speaker))
    own = activity[words, speaker].astype(np.float64)
    others = activity.astype(np.float64)
    others[words, speaker] = 0.0
    other = others.max(axis=1)
    share: Floats = other / (own + other + 1e-6)
    return share


def count_probability(diarization: Diarization, scaling: CountScaling = CountScaling()) -> float | None:
    """How probable it is that exactly as many people speak as were found, 0..1.

    Voices that were joined, or split, leave frames behind that could be one speaker's as well as another's: the more of
    them, the less sure. Nothing else that was tried (the likeness of the voices, how long the quietest speaks, how many
    there are) told more on recordings that it was not fitted on.

    Returns:
        None where nobody speaks, or of a diarizer that this was not fitted for, or one without frame activity.
    """
    activity = diarization.activity
    if activity is None or not diarization.turns or diarization.diarizer != CALIBRATED_DIARIZER:
        return None
    share = math.log(contested_frames(activity) + scaling.least)
    return float(_logistic(np.float64(scaling.constant + scaling.log_contested * share)))


def contested_frames(activity: SpeakerActivity) -> float:
    """The share of frames with speech of which no speaker has ``CONTESTED``, 0..1; overlap is among them."""
    if activity.scores.size == 0:
        return 0.0
    first = activity.scores.max(axis=1)
    speech = first > AUDIBLE
    if not speech.any():
        return 0.0
    total = activity.scores.sum(axis=1)
    return float((first[speech] < CONTESTED * total[speech]).mean())


def _logistic(value: Floats | np.float64) -> Floats:
    probable: Floats = 1.0 / (1.0 + np.exp(-value))
    return probable
