"""A random PLDA with the names, the shapes and the types that community-1's has."""

from __future__ import annotations

import numpy as np

VALUES, FEATURES = 256, 128


def plda_parameters(seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of both files, with the types that pyannote's have."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.standard_normal((VALUES, FEATURES)))[0]
    return {
        "mean1": 0.01 * random.standard_normal(VALUES),
        "lda": directions.astype(np.float32),
        "mean2": (0.01 * random.standard_normal(FEATURES)).astype(np.float32),
        "mu": 0.01 * random.standard_normal(FEATURES),
        "tr": 1.7 * np.linalg.qr(random.standard_normal((FEATURES, FEATURES)))[0],
        "psi": np.linspace(4.0, 0.3, FEATURES),
    }
