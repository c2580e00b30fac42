"""Recommendation of a speech recognition model for the languages of a user and a machine.

The rules are simple on purpose, and ``docs/which-model.md`` states them:

- Only models whose license permits commercial use are recommended.
- A model may need at most three fifths of the memory. Where its memory was not measured, 700 MB and 1.5 times its files
  are assumed.
- For each group of languages, the first model of a list is taken that fits and for which there are enough cores. The
  lists are in the order of the published word error rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diarist.models.catalog import Model

LanguageGroup = Literal["English", "European languages", "other languages"]

COMMERCIAL_LICENCES = frozenset({"MIT", "Apache-2.0", "CC-BY-4.0"})
"""Licenses that permit commercial use."""

_BASE_MEMORY_MB = 700
_MEMORY_PER_FILE_SIZE = 1.5


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    min_cores: int = 1
    """The number of cores below which the model is too slow to be recommended."""


_CANDIDATES: Mapping[LanguageGroup, tuple[_Candidate, ...]] = {
    "English": (_Candidate("parakeet-tdt-0.6b-v2"), _Candidate("whisper-base"), _Candidate("whisper-tiny.en")),
    "European languages": (_Candidate("parakeet-tdt-0.6b-v3"), _Candidate("whisper-base")),
    "other languages": (
        _Candidate("whisper-large-v3-turbo", min_cores=8),
        _Candidate("whisper-small", min_cores=4),
        _Candidate("whisper-base"),
    ),
}
"""The models for each group of languages, the most accurate one first."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Represents the resources that matter for the choice of a model."""

    cores: int
    memory_mb: int | None
    """None if it is unknown; then every model is assumed to fit."""


def required_memory_mb(model: Model) -> int:
    """Return the peak memory of a transcription with this model: the measured one, or else an estimate."""
    if model.memory_mb is not None:
        return model.memory_mb
    return _BASE_MEMORY_MB + round(_MEMORY_PER_FILE_SIZE * model.disk_bytes / 2**20)


def recommend(models: Mapping[str, Model], machine: Machine) -> Mapping[LanguageGroup, Model]:
    """Return the recommended model for each group of languages; groups without one are left out."""
    recommended: dict[LanguageGroup, Model] = {}
    for group, candidates in _CANDIDATES.items():
        for candidate in candidates:
            model = models.get(candidate.name)
            if model is not None and machine.cores >= candidate.min_cores and _is_suitable(model, machine):
                recommended[group] = model
                break
    return recommended


def _is_suitable(model: Model, machine: Machine) -> bool:
    fits = machine.memory_mb is None or required_memory_mb(model) <= machine.memory_mb * 3 // 5
    return fits and model.licence in COMMERCIAL_LICENCES
