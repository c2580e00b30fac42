"""From embeddings to the speakers of a recording by VBx, as pyannote.audio 4 does it.

Centroid linkage gives too many clusters to begin with, and VBx removes those that are not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diarist.clustering.centroid_linkage import centroid_linkage
from diarist.clustering.embeddings import Floats, SpeakerBounds, l2_normalize
from diarist.clustering.plda import Plda
from diarist.clustering.spectral import k_means
from diarist.clustering.vbx import vbx

LINKAGE_THRESHOLD = 0.6
"""The Euclidean distance of unit vectors up to which two clusters are merged before VBx: pyannote's published value."""

MAX_SAMPLE = 2_000
"""At most this many embeddings, evenly sampled, are clustered where the number of speakers is given."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundSpeakers:
    """The speakers of a recording."""

    centers: Floats
    """The mean embedding of each speaker, not of unit length, float32 (speakers, values)."""

    forced: bool
    """Whether the bounds decided how many speakers there are. The centers are then those of k-means."""


def find_speakers(embeddings: Floats, plda: Plda, bounds: SpeakerBounds) -> FoundSpeakers:
    """Return the speakers of embeddings, float32 (windows, values); there is at least one window.

    Where VBx finds fewer or more speakers than the bounds allow, k-means on unit vectors finds the number that is
    nearest.
    """
    count = len(embeddings)
    lowest, highest = bounds.clip(1, count), bounds.clip(count, count)
    if highest == 1:
        return FoundSpeakers(embeddings.mean(axis=0, keepdims=True), forced=True)
    unit = l2_normalize(embeddings)
    result = vbx(plda.project(embeddings), plda.between, centroid_linkage(unit, LINKAGE_THRESHOLD))
    found = result.probability.shape[1]
    if lowest <= found <= highest:
        centers = result.probability.T @ embeddings / result.probability.sum(axis=0)[:, None]
        return FoundSpeakers(centers.astype(np.float32), forced=False)
    step = -(-count // MAX_SAMPLE)
    sample = embeddings[::step]
    speakers = min(max(found, lowest), highest, len(sample))
    labels = k_means(unit[::step], speakers)
    return FoundSpeakers(np.stack([sample[labels == speaker].mean(axis=0) for speaker in range(speakers)]), forced=True)
