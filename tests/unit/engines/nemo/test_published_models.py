"""What is known of published models."""

from __future__ import annotations

import re

import pytest

from diarist.engines.nemo import published_models
from diarist.settings import Settings


@pytest.mark.parametrize(
    "reference",
    [
        "nvidia/parakeet-tdt-0.6b-v3",
        "parakeet-tdt-0.6b-v3",
        "/models/parakeet-tdt-0.6b-v3.nemo",
        "C:\\models\\Parakeet-TDT-0.6b-v3.nemo",
    ],
)
def test_a_model_is_known_by_each_of_its_names(reference):
    model = published_models.find(reference)
    assert model is not None
    assert model.name == "nvidia/parakeet-tdt-0.6b-v3"
    assert len(model.languages) == len(set(model.languages)) == 25
    assert published_models.licence(reference) == "CC-BY-4.0"


def test_nothing_is_known_of_the_rest():
    assert published_models.find("mine.nemo") is None
    assert published_models.licence("mine.nemo") == published_models.UNKNOWN_LICENCE
    assert published_models.languages("mine.nemo") == ()


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("stt_en_citrinet_512", ("en",)),
        ("stt_de_fastconformer_hybrid_large_pc", ("de",)),
        ("nvidia/stt_ua_fastconformer_hybrid_large_pc", ("uk",)),
        ("stt_by_fastconformer_hybrid_large_pc", ("be",)),
        ("/models/stt_enes_conformer_ctc_large.nemo", ("en", "es")),
        ("stt_kab_conformer_transducer_large", ()),
        ("stt_multilingual_fastconformer_hybrid_large_pc", ()),
        ("titanet_large", ()),
    ],
)
def test_languages_that_a_name_tells(name, languages):
    assert published_models.languages(name) == languages


def test_each_model_is_one_that_can_be_loaded():
    stems = [published_models.normalized_name(model.name) for model in published_models.PUBLISHED_MODELS]
    assert len(stems) == len(set(stems))
    for model in published_models.PUBLISHED_MODELS:
        assert model.class_name in published_models.CLASSES[model.role], model.name
        assert model.origin.startswith("https://")
        assert model.licence
        assert (model.max_speakers is not None) == (model.role == "diarization"), model.name
        assert all(len(name) == 2 for name in model.languages)
        assert bool(model.languages) == (model.role == "recognition"), model.name


def test_no_class_serves_two_roles():
    names = [name for names in published_models.CLASSES.values() for name in names]
    assert len(names) == len(set(names))


def test_models_for_research_alone_are_no_default():
    defaults = [value for value in Settings.model_construct().model_dump().values() if isinstance(value, str)]
    found = [model for value in defaults if (model := published_models.find(value))]
    assert found, "the settings name published models"
    assert not [model.name for model in found if "NC" in model.licence]
    assert "NC" in published_models.licence("nvidia/diar_sortformer_4spk-v1")


def test_the_models_of_the_configurations_have_a_hash_and_a_revision() -> None:
    for name in (
        "parakeet-tdt-0.6b-v3",
        "diar_streaming_sortformer_4spk-v2.1",
        "frame_vad_multilingual_marblenet_v2.0",
    ):
        model = published_models.find(name)
        assert model is not None
        assert re.fullmatch("[0-9a-f]{64}", model.sha256 or "")
        assert re.fullmatch("[0-9a-f]{40}", model.revision or "")
    titanet = published_models.find("titanet_large")
    assert titanet is not None
    assert re.fullmatch("[0-9a-f]{64}", titanet.sha256 or "")
