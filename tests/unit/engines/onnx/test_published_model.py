"""Published Parakeet models from a hub with the real names and layout, and random weights: pulled, loaded and run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy

from diarist.engines.onnx.mel_features import MelFeatures
from diarist.engines.registry import load_recognizer
from diarist.errors import ConfigurationError, InvalidOption, ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore, load_catalog, user_catalog
from diarist.models.catalog import Model
from diarist.models.exported_model import read
from diarist.protocols import Recognizer
from diarist.settings import load_settings
from diarist.types import Audio, Span
from support import published_tdt
from support.loopback_hub import Behavior, LoopbackHub, serving_hub

V3, V2 = "parakeet-tdt-0.6b-v3", "parakeet-tdt-0.6b-v2"
NAMES = (V3, f"{V3}-fp32", V2, f"{V2}-fp32")


@pytest.fixture(scope="module")
def files() -> Mapping[str, bytes]:
    return published_tdt.repository()


@pytest.fixture
def catalog(files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Model]:
    """The catalog, in which the published models have the sizes and the hashes of the small ones."""
    real = load_catalog()
    models = {**real, **{name: published_tdt.with_these_files(real[name], files) for name in NAMES}}
    monkeypatch.setattr(user_catalog, "load_catalog", lambda: models)
    return models


@pytest.fixture
def hub(files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    from huggingface_hub import constants

    with serving_hub({f"istupakov/{name}-onnx": files for name in (V3, V2)}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.fixture
def load(catalog: Mapping[str, Model], hub: LoopbackHub, tmp_path: Path) -> Callable[..., Recognizer]:
    """``load(model, **settings)``: the recognizer, after the model was pulled from the hub."""

    def pull_and_load(name: str, **chosen: object) -> Recognizer:
        settings = load_settings(model_dir=tmp_path / "models", cpu_threads=1, **{"model": name, **chosen})
        ModelStore.of(settings).pull(name)
        loaded = load_recognizer("onnx", settings)
        assert [(info.name, info.role, info.licence) for info in loaded.models] == [(name, "recognition", "CC-BY-4.0")]
        return loaded.part

    return pull_and_load


@pytest.fixture
def audio() -> Audio:
    """Twelve seconds of noise whose level and color change several times a second."""
    rng = np.random.default_rng(3)
    steps = [rng.standard_normal(1_600) * level for level in rng.uniform(0.01, 0.3, 120)]
    colored = [np.convolve(step, rng.standard_normal(5), "same") for step in steps]
    return Audio(np.concatenate(colored).clip(-1, 1).astype(np.float32))


def quiet(_stage: str, _done: float) -> None:
    pass


@pytest.mark.parametrize("name", NAMES)
def test_a_pulled_model_gives_words_with_times(
    name: str, load: Callable[..., Recognizer], catalog: Mapping[str, Model], hub: LoopbackHub, audio: Audio
) -> None:
    recognizer = load(name)
    assert recognizer.languages == tuple(sorted(catalog[name].languages))
    found = recognizer.recognize(audio, (Span(0.5, 6.0), Span(7.0, 11.5)), None, quiet)
    assert len(found.words) > 5
    starts = [word.span.start for word in found.words]
    assert starts == sorted(starts)
    for word in found.words:
        assert 0.0 <= word.span.start < word.span.end <= 12.0
        assert 0.0 < word.confidence <= 1.0
        assert word.text.strip()
        assert not re.search("[<|>▁]", word.text), "special tokens are not words"
    assert found.language == ("en" if "v2" in name else None)
    paths = [request.path for request in hub.requests]
    assert {path.rpartition("/")[2] for path in paths} == {file.name for file in catalog[name].files}
    assert all(f"/resolve/{catalog[name].revision}/" in path for path in paths)


def test_int8_and_fp32_recognize_nearly_the_same(load: Callable[..., Recognizer], audio: Audio) -> None:
    texts = [
        "".join(word.text for word in load(name).recognize(audio, (Span(0.0, 12.0),), None, quiet).words)
        for name in (V3, f"{V3}-fp32")
    ]
    same = sum(one == other for one, other in zip(*texts, strict=False))
    assert same > 0.5 * max(map(len, texts))


def test_a_language_that_the_model_does_not_have_is_refused(load: Callable[..., Recognizer], audio: Audio) -> None:
    with pytest.raises(InvalidOption, match=r"'de'; it supports en\."):
        load(V2).recognize(audio, (Span(0.0, 5.0),), "de", quiet)


def test_onnx_asr_model_means_the_pulled_model_if_no_export_has_that_name(
    load: Callable[..., Recognizer], audio: Audio
) -> None:
    recognizer = load(V3, model="", recognizer="onnx", onnx_asr_model=V3)
    assert recognizer.recognize(audio, (Span(0.0, 5.0),), None, quiet).words


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        (Behavior(content=b"x" * 276), "SHA-256"),
        (Behavior(content=b"<unk> 0\n"), ""),
    ],
    ids=["wrong", "short"],
)
def test_a_file_that_is_not_the_published_one_is_refused_by_its_name(
    behavior: Behavior, reason: str, load: Callable[..., Recognizer], hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.behaviors["vocab.txt"] = behavior
    with pytest.raises((ModelCorrupt, ModelUnavailable), match=rf"(?s)vocab\.txt.*{reason}"):
        load(V3)
    assert not (tmp_path / "models" / V3 / "diarist.json").exists()


def test_a_model_that_was_not_pulled_says_what_to_do(catalog: Mapping[str, Model], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=f"{V3} is missing .*diarist models pull"):
        load_recognizer("onnx", load_settings(model=V3, model_dir=tmp_path))


def test_a_model_of_another_recognizer_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs the recognizer onnx, but RECOGNIZER is whisper"):
        load_recognizer("onnx", load_settings(model=V3, recognizer="whisper", model_dir=tmp_path))


def test_features_are_those_of_onnx_asr(load: Callable[..., Recognizer], audio: Audio, tmp_path: Path) -> None:
    load(V3)
    folder = tmp_path / "models" / V3
    found = MelFeatures.load(folder, read(folder).features).normalized(audio.samples)
    ((expected,), _) = NemoPreprocessorNumpy("nemo128")(audio.samples[None], np.array([len(audio.samples)]))
    assert np.abs(found - expected.T[: len(found)]).max() < 2e-4
    assert np.abs(found - expected.T[: len(found)]).mean() < 3e-6
