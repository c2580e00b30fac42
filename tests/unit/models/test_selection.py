"""Which model the settings select, and what is said of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from diarist.engines.required_models import required_models
from diarist.errors import ConfigurationError
from diarist.models import required, select_recognizer
from diarist.models.selection import (
    SelectedRecognizer,
    log_untested,
    recognizer_names,
    recognizer_summary,
    select_embedding_model,
)
from diarist.settings import Settings, load_settings

PARAKEET = "parakeet-tdt-0.6b-v3"
DIARIZER = ("segmentation-3.0", "campplus")


def settings(tmp_path: Path, **chosen: object) -> Settings:
    return load_settings(model_dir=tmp_path, **chosen)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, SelectedRecognizer("whisper", "whisper-base", "WHISPER_MODEL", cataloged=True)),
        ({"model": PARAKEET}, SelectedRecognizer("onnx", PARAKEET, "MODEL", cataloged=True)),
        ({"model": PARAKEET, "engine": "nemo"}, SelectedRecognizer("onnx", PARAKEET, "MODEL", cataloged=True)),
        ({"model": "large-v3-turbo"}, SelectedRecognizer("whisper", "whisper-large-v3-turbo", "MODEL", cataloged=True)),
        ({"model": "Small.EN"}, SelectedRecognizer("whisper", "whisper-small.en", "MODEL", cataloged=True)),
        (
            {"model": "istupakov/parakeet-tdt-0.6b-v2-onnx"},
            SelectedRecognizer("onnx", "parakeet-tdt-0.6b-v2", "MODEL", cataloged=True),
        ),
        ({"recognizer": "onnx"}, SelectedRecognizer("onnx", PARAKEET, "ONNX_ASR_MODEL", cataloged=True)),
        (
            {"recognizer": "onnx", "onnx_asr_model": "whisper-base"},
            SelectedRecognizer("onnx", "whisper-base", "ONNX_ASR_MODEL"),
        ),
        (
            {"recognizer": "onnx", "onnx_asr_model": f"/models/{PARAKEET}"},
            SelectedRecognizer("onnx", f"/models/{PARAKEET}", "ONNX_ASR_MODEL"),
        ),
        ({"recognizer": "nemo", "nemo_asr_model": PARAKEET}, SelectedRecognizer("nemo", PARAKEET, "NEMO_ASR_MODEL")),
    ],
)
def test_the_settings_select(chosen: dict[str, str], expected: SelectedRecognizer, tmp_path: Path) -> None:
    selected = select_recognizer(settings(tmp_path, **chosen))
    assert selected == expected
    needed = (expected.model,) if expected.cataloged else ()
    diarizer = () if chosen.get("engine") == "nemo" else DIARIZER
    assert required(settings(tmp_path, **chosen)) == (*diarizer, *needed)


def test_an_exported_model_comes_before_a_published_one_of_its_name_unless_model_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "exported" / PARAKEET
    folder.mkdir(parents=True)
    (folder / "diarist.json").write_text("{}")
    exported = settings(tmp_path, recognizer="onnx")
    assert not select_recognizer(exported).cataloged
    assert required(exported) == DIARIZER
    assert [(model.reference, model.exported) for model in required_models(exported)] == [(PARAKEET, True)]
    published = settings(tmp_path, model=PARAKEET)
    assert required(published) == (*DIARIZER, PARAKEET)
    assert list(required_models(published)) == []


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("parakeet", "Choose one of"),
        ("parakeet-tdt-0.6b-v4", "Did you mean parakeet-tdt-0.6b-v"),
        ("lagre-v3-turbo", "Did you mean large-v3-turbo"),
        ("Large-V4-Turbo", "Did you mean large-v3-turbo"),
        ("campplus", "Choose one of"),
    ],
)
def test_a_name_of_no_recognizer_is_answered_with_the_closest_ones(name: str, suggested: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"MODEL: there is no model '{name}'. {suggested}"):
        select_recognizer(settings(tmp_path, model=name))


def test_a_recognizer_that_cannot_run_the_model_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"MODEL={PARAKEET} needs the recognizer onnx, but RECOGNIZER is nemo"):
        select_recognizer(settings(tmp_path, model=PARAKEET, recognizer="nemo"))


def test_the_names_that_can_be_chosen_select_a_model_each(tmp_path: Path) -> None:
    names = recognizer_names(settings(tmp_path))
    assert {"base", "large-v3-turbo", PARAKEET, f"{PARAKEET}-fp32"} <= set(names)
    assert len({select_recognizer(settings(tmp_path, model=name)).model for name in names}) == len(names)


def test_the_log_names_the_model_and_says_whether_it_was_ever_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="diarist.models.selection")
    for chosen, summary, untested in (
        ({"model": PARAKEET}, f"onnx with {PARAKEET}", True),
        ({}, "whisper with whisper-base", False),
        ({"recognizer": "nemo"}, "nemo", False),
        ({"model": PARAKEET, "diarizer": "onnx", "embedding_model": "eres2netv2"}, f"onnx with {PARAKEET}", True),
    ):
        caplog.clear()
        assert recognizer_summary(settings(tmp_path, **chosen)) == summary
        log_untested(settings(tmp_path, **chosen))
        assert (f"never run {PARAKEET} with its published weights" in caplog.text) == untested
        assert bool(caplog.records) == untested


def test_the_log_says_it_of_the_embedding_model_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="diarist.models.selection")
    log_untested(settings(tmp_path, embedding_model="eres2netv2"))
    (line,) = caplog.messages
    assert line.startswith("The developers of Diarist have never run eres2netv2 with its published weights.")
    assert "`diarist evaluate`" in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("campplus", "campplus"),
        ("ERes2NetV2", "eres2netv2"),
        ("wespeaker-resnet34-lm", "wespeaker-resnet34-lm"),
        ("Wespeaker/wespeaker-voxceleb-resnet34-LM", "wespeaker-resnet34-lm"),
    ],
)
def test_the_embedded_diarizer_needs_the_chosen_embedding_model(name: str, expected: str, tmp_path: Path) -> None:
    chosen = settings(tmp_path, embedding_model=name)
    assert select_embedding_model(chosen).name == expected
    assert required(chosen) == ("segmentation-3.0", expected, "whisper-base")


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("campus", "Did you mean campplus"), ("community-1-embedding", "Choose one of"), ("base", "Choose one of")],
)
def test_a_name_of_no_embedding_model_is_answered_with_those_that_are(
    name: str, suggested: str, tmp_path: Path
) -> None:
    wrong = settings(tmp_path, embedding_model=name)
    for use in (required, log_untested, select_embedding_model):
        with pytest.raises(ConfigurationError, match=rf"EMBEDDING_MODEL: there is no model '{name}'\. {suggested}"):
            use(wrong)


@pytest.mark.parametrize("diarizer", ["community-1", "onnx", "sortformer"])
def test_other_diarizers_ignore_the_embedding_model(diarizer: str, tmp_path: Path) -> None:
    chosen = {"diarizer": diarizer, "embedding_model": "campus"}
    assert required(settings(tmp_path, **chosen)) == required(settings(tmp_path, diarizer=diarizer))
