"""Probabilistic linear discriminant analysis (PLDA): embeddings as Gaussians around Gaussian speakers.

Ioffe, "Probabilistic linear discriminant analysis" (2006); Kenny, "Bayesian speaker verification with heavy-tailed
priors" (2010). The form, a transform that makes both covariances diagonal, is that of Kaldi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Plda:
    """A projection of embeddings to features of which all parameters are known.

    Within a speaker, the features are Gaussian with the identity as their covariance. The means of speakers are
    Gaussian around zero with the diagonal covariance ``between``.
    """

    embedding_mean: Vectors
    """The mean of embeddings, (values,). It is subtracted first."""

    discriminant: Vectors
    """The linear discriminant analysis, (values, features). It is applied to embeddings of the length sqrt(values)."""

    discriminant_mean: Vectors
    """The mean after it, (features,)."""

    mean: Vectors
    """The mean of the vectors after a second length normalization, to sqrt(features); shape (features,)."""

    transform: Vectors
    """The transform that makes the covariances the identity and diagonal, (features, features); rows are directions."""

    between: Vectors
    """The variances of the means of speakers, (features,)."""

    @classmethod
    def of(
        cls, *, mean1: ArrayLike, lda: ArrayLike, mean2: ArrayLike, mu: ArrayLike, tr: ArrayLike, psi: ArrayLike
    ) -> Plda:
        """Return the model of these parameters, which have the names of BUT's VBx and of pyannote.audio.

        With W, the covariance within speakers, and B, that of their means, ``tr`` fulfills ``tr W tr' = 1`` and ``tr B
        tr' = diag(psi)``. So its rows are the generalized eigenvectors of B and W; none have to be computed.

        Raises:
            ValueError: The shapes do not fit each other, or a value is not finite, or a variance is negative.
        """
        parameters = [np.asarray(each, dtype=np.float64) for each in (mean1, lda, mean2, mu, tr, psi)]
        embedding_mean, discriminant, discriminant_mean, mean, transform, between = parameters
        values, features = discriminant.shape if discriminant.ndim == 2 else (0, 0)
        shapes = [(values,), (values, features), (features,), (features,), (features, features), (features,)]
        if [each.shape for each in parameters] != shapes:
            raise ValueError(f"the parameters of the PLDA have the shapes {[each.shape for each in parameters]}")
        if not all(np.isfinite(each).all() for each in parameters) or (between < 0).any():
            raise ValueError("the parameters of the PLDA are not numbers, or negative variances")
        return cls(embedding_mean, discriminant, discriminant_mean, mean, transform, between)

    def project(self, embeddings: NDArray[np.floating]) -> Vectors:
        """Return the features of embeddings, (windows, values) to float64 (windows, features).

        Both length normalizations are those of Garcia-Romero and Espy-Wilson, "Analysis of i-vector length
        normalization in speaker recognition systems" (2011), which makes the distribution of embeddings Gaussian.
        """
        vectors = _scale_to_root(embeddings - self.embedding_mean) @ self.discriminant
        vectors = _scale_to_root(vectors - self.discriminant_mean)
        features: Vectors = (vectors - self.mean) @ self.transform.T
        return features


def _scale_to_root(vectors: Vectors) -> Vectors:
    """Scale rows to the length of a standard Gaussian vector, the root of the number of values; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors * (np.sqrt(vectors.shape[1]) / np.maximum(length, 1e-12))
    return scaled
