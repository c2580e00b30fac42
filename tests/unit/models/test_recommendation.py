from __future__ import annotations

from dataclasses import replace

import pytest

from diarist.models import load_catalog
from diarist.models.recommendation import COMMERCIAL_LICENCES, Machine, recommend, required_memory_mb


def names(cores: int, memory_mb: int | None) -> list[str]:
    return [model.name for model in recommend(load_catalog(), Machine(cores, memory_mb)).values()]


@pytest.mark.parametrize(
    ("cores", "memory_mb", "expected"),
    [
        (1, 512, []),
        (1, 2_048, ["whisper-base", "whisper-base", "whisper-base"]),
        (2, 4_096, ["parakeet-tdt-0.6b-v2", "parakeet-tdt-0.6b-v3", "whisper-base"]),
        (4, 8_192, ["parakeet-tdt-0.6b-v2", "parakeet-tdt-0.6b-v3", "whisper-small"]),
        (16, 65_536, ["parakeet-tdt-0.6b-v2", "parakeet-tdt-0.6b-v3", "whisper-large-v3-turbo"]),
        (16, None, ["parakeet-tdt-0.6b-v2", "parakeet-tdt-0.6b-v3", "whisper-large-v3-turbo"]),
    ],
)
def test_the_recommendation_depends_on_the_machine(cores: int, memory_mb: int | None, expected: list[str]) -> None:
    assert names(cores, memory_mb) == expected


def test_a_license_that_forbids_commercial_use_is_not_recommended() -> None:
    models = {name: replace(model, licence="CC-BY-NC-4.0") for name, model in load_catalog().items()}
    assert recommend(models, Machine(16, None)) == {}


def test_what_is_recommended_is_in_the_catalog_and_understands_the_languages() -> None:
    recommended = recommend(load_catalog(), Machine(64, None))
    assert "en" in recommended["English"].languages
    assert len(recommended["European languages"].languages) >= 25
    assert len(recommended["other languages"].languages) >= 99
    assert {model.licence for model in recommended.values()} <= COMMERCIAL_LICENCES


def test_the_measured_memory_counts_if_there_is_one() -> None:
    model = load_catalog()["whisper-base"]
    assert required_memory_mb(model) == model.memory_mb
    assert 800 < required_memory_mb(replace(model, memory_mb=None)) < 1_000
