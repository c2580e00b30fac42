"""Calibration of confidences: scores are mapped to probabilities that match how often they are correct.

Two logistic functions with few constants are fitted on recordings whose speakers are known. ``docs/accuracy.md`` lists
these recordings, and says how accurate the functions are on others. The first is Platt's scaling of a posterior's
log-odds ("Probabilistic outputs for support vector machines", 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.types import Diarization, SpeakerActivity

Floats = NDArray[np.float64]

CALIBRATED_DIARIZER = "embedded"
"""The only diarizer whose speaker counts were compared with references often enough to be calibrated."""

SPEECH_ACTIVITY = 0.05
"""Frames in which no speaker's activity is above this are silence."""

CONTESTED_SHARE = 0.7
"""A frame is contested if its most active speaker has a smaller share than this of the activity of all speakers."""


@dataclass(frozen=True, slots=True)
class WordScaling:
    """Maps the posterior of a word's speaker to a probability: a logistic function of two features."""

    constant: float = 0.934
    log_odds: float = 0.552
    """The weight of the posterior's log-odds. It is below 1 because the evidence of neighboring words is not as
    independent as the posterior assumes."""

    contested: float = -2.294
    """The weight of the next speaker's share of the activity in the word's frames, 0..1."""

    max_log_odds: float = 8.0
    """The limit of the log-odds in either direction."""


@dataclass(frozen=True, slots=True)
class CountScaling:
    """Maps the share of contested frames to the probability of the count: a logistic function of its logarithm."""

    constant: float = -1.466
    log_contested: float = -1.076
    offset: float = 0.01
    """Added to the share, since zero has no logarithm."""


def speaker_probability(posterior: Floats, contested: Floats, scaling: WordScaling = WordScaling()) -> Floats:
    """Return the probability that each word belongs to its speaker, (words,), 0..1.

    Args:
        posterior: The posterior of each word's speaker among all speakers, 0..1, (words,).
        contested: The result of ``contested_share``, (words,).
        scaling: The fitted constants.
    """
    epsilon = math.exp(-scaling.max_log_odds) / 2
    clipped = np.clip(posterior, epsilon, 1 - epsilon)
    log_odds = np.clip(np.log(clipped) - np.log1p(-clipped), -scaling.max_log_odds, scaling.max_log_odds)
    probability: Floats = _logistic(scaling.constant + scaling.log_odds * log_odds + scaling.contested * contested)
    return probability


def contested_share(activity: Floats, speaker: NDArray[np.int64]) -> Floats:
    """Return the strongest other speaker's share of the activity of that speaker and the word's own, 0..1, (words,).

    Args:
        activity: The activity of each speaker in each word's frames, 0..1, (words, speakers).
        speaker: The column of each word's speaker, (words,).
    """
    words = np.arange(len(speaker))
    own = activity[words, speaker].astype(np.float64)
    others = activity.astype(np.float64)
    others[words, speaker] = 0.0
    other = others.max(axis=1)
    share: Floats = other / (own + other + 1e-6)
    return share


def count_probability(diarization: Diarization, scaling: CountScaling = CountScaling()) -> float | None:
    """Return the probability that the number of speakers is correct, 0..1.

    Speakers that were merged or split leave frames that could belong to either of two speakers: the more such frames
    there are, the less certain is the count. No other feature that was tried (the similarity of the embeddings,
    the speech of the quietest speaker, the number of speakers) improved it on recordings that it was not fitted on.

    Returns:
        None if nobody speaks, if the function was not fitted for the diarizer, or if there is no frame activity.
    """
    activity = diarization.activity
    if activity is None or not diarization.turns or diarization.diarizer != CALIBRATED_DIARIZER:
        return None
    share = math.log(contested_frames(activity) + scaling.offset)
    return float(_logistic(np.float64(scaling.constant + scaling.log_contested * share)))


def contested_frames(activity: SpeakerActivity) -> float:
    """Return the share of speech frames in which no speaker has ``CONTESTED_SHARE``, 0..1; it includes overlap."""
    if activity.scores.size == 0:
        return 0.0
    strongest = activity.scores.max(axis=1)
    speech = strongest > SPEECH_ACTIVITY
    if not speech.any():
        return 0.0
    total = activity.scores.sum(axis=1)
    return float((strongest[speech] < CONTESTED_SHARE * total[speech]).mean())


def _logistic(value: Floats | np.float64) -> Floats:
    probability: Floats = 1.0 / (1.0 + np.exp(-value))
    return probability
