"""Published embedding models with their real inputs and outputs and random weights: pulled, opened and used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy

from diarist.cli import main
from diarist.engines.device import CPU
from diarist.engines.embedded.graph_placement import open_embedder
from diarist.engines.embedded.parallel import Parallelism
from diarist.engines.embedded.speaker_embedding import FilterbankSettings, features_named, filterbanks
from diarist.engines.registry import load_diarizer
from diarist.errors import ModelCorrupt
from diarist.models import ModelStore, load_catalog
from diarist.models.catalog import Model
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Span, SpeakerHints
from support import in_process_engine
from support.published_embeddings import FORMS, graph, published

WINDOWS = (Span(0.0, 1.5), Span(0.75, 2.25), Span(2.0, 2.9))


def ignore(*_: object) -> None:
    pass


def entry(name: str) -> Model:
    return load_catalog()[name]


@pytest.fixture
def audio() -> Audio:
    rng = np.random.default_rng(2)
    return Audio((rng.standard_normal(3 * SAMPLE_RATE) * 0.1).astype(np.float32))


def test_the_forms_are_those_of_all_published_files() -> None:
    chosen = {name for name, model in load_catalog().items() if model.role == "embedding" and model.graph is None}
    assert set(FORMS) == chosen


@pytest.mark.parametrize("name", FORMS)
def test_a_pulled_file_is_opened_as_it_is(
    name: str, audio: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = graph(FORMS[name])
    with published(monkeypatch, {name: content}) as hub:
        store = ModelStore.of(load_settings(model_dir=tmp_path))
        folder = store.pull(name)
        assert {request.path.split("/")[4] for request in hub.requests} == {entry(name).revision}
    path = folder / entry(name).files[0].name
    assert path.read_bytes() == content
    assert [each.name for each in folder.iterdir() if not each.name.startswith(".")] == [path.name]
    features = features_named(str(entry(name).features))
    found = open_embedder(path, CPU, Parallelism(1, 1), features).embed(audio, WINDOWS, ignore)
    assert found.shape == (len(WINDOWS), FORMS[name].values)
    session = onnxruntime.InferenceSession(path)
    for window, embedding in zip(WINDOWS, found, strict=True):
        if isinstance(features, FilterbankSettings):
            own = filterbanks(audio, features)[round(window.start * 100) : round(window.end * 100)]
            inputs = {FORMS[name].source: (own - own.mean(axis=0))[None]}
        else:
            own = nemo_features(audio.cut(window))
            inputs = {FORMS[name].source: own, "length": np.array([own.shape[2]])}
        expected = session.run([FORMS[name].target], inputs)[0][0]
        np.testing.assert_allclose(embedding, expected, atol=2e-3)


def nemo_features(audio: Audio) -> NDArray[np.float32]:
    """Return the features of a window as onnx-asr computes those of NeMo, (1, 80, frames)."""
    frames = len(audio.samples) // 160
    features, _ = NemoPreprocessorNumpy("nemo80")(audio.samples[None], np.array([len(audio.samples)]))
    cut: NDArray[np.float32] = features[:, :, :frames]
    return cut


@pytest.mark.nemo
def test_the_embeddings_of_an_export_with_nemo_are_those_of_nemo(audio: Audio, tmp_path: Path) -> None:
    import torch

    from support.random_nemo_models import speaker

    path = tmp_path / "voices.onnx"
    model = speaker().eval()
    with torch.no_grad():
        model.export(str(path))  # as in sherpa-onnx's scripts/nemo/speaker-verification
    found = open_embedder(path, CPU, Parallelism(1, 1), features_named("nemo-80")).embed(audio, WINDOWS, ignore)
    for window, embedding in zip(WINDOWS, found, strict=True):
        expected = model.infer_segment(audio.cut(window).samples)[0][0].numpy()
        np.testing.assert_allclose(embedding, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.19])
def test_a_short_window_of_nemo_features_is_repeated(seconds: float, audio: Audio, tmp_path: Path) -> None:
    path = tmp_path / "voices.onnx"
    path.write_bytes(graph(FORMS["titanet-large"]))
    embedder = open_embedder(path, CPU, Parallelism(1, 1), features_named("nemo-80"))
    (short,) = embedder.embed(audio, (Span(1.0, 1.0 + seconds),), ignore)
    repeated = np.resize(audio.cut(Span(1.0, 1.0 + seconds)).samples, 3_200)
    longer = Audio(np.concatenate([repeated, np.zeros(400, dtype=np.float32)]))
    (expected,) = embedder.embed(longer, (Span(0.0, 0.2),), ignore)
    np.testing.assert_allclose(short, expected, atol=1e-5)


def test_a_file_with_another_input_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "voices.onnx"
    path.write_bytes(graph(FORMS["eres2netv2"], mels=64))
    message = r"voices\.onnx cannot be used .* x tensor\(float\) \['B', 'T', 64\].*\(batch, rows, 80\)"
    with pytest.raises(ModelCorrupt, match=message):
        open_embedder(path, CPU, Parallelism(1, 1))


def test_a_file_with_two_inputs_is_refused(tmp_path: Path) -> None:
    from support.random_community_1 import pulled_store, write_source

    models = write_source(tmp_path / "source", channels=2)
    path = pulled_store(tmp_path / "store", models, tmp_path / "source").locate("community-1-embedding")
    with pytest.raises(ModelCorrupt, match=r"weights tensor\(float\)"):
        open_embedder(path, CPU, Parallelism(1, 1))


@pytest.mark.models
@pytest.mark.parametrize("name", FORMS)
def test_a_call_is_transcribed_with_a_model_from_the_hub(
    name: str,
    sample_recording: Path,
    model_store: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MODEL_SOURCE_DIR", str(model_store.root))
    monkeypatch.setenv("EMBEDDING_MODEL", name)
    with published(monkeypatch, {name: graph(FORMS[name])}) as hub:
        options = ("--format", "json", "--num-speakers", "2", "--words", "--verbose")
        args = ["transcribe", str(sample_recording), *options]
        result = CliRunner().invoke(main, args, catch_exceptions=False, obj=in_process_engine.load)
        assert hub.requests
    assert result.exit_code == 0, result.output
    assert f"never run {name} with its published weights" in caplog.text
    segments = json.loads(result.stdout)["conversation"]
    assert {segment["speaker"] for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert sum(len(segment["words"]) for segment in segments) > 40
    fetched = {path.parent.name for path in (tmp_path / "models").glob("[!.]*/[!.]*")}
    assert fetched - {"campplus"} == {"segmentation-3.0", name, "whisper-base"}  # a source has campplus too


@pytest.mark.models
def test_the_engine_names_the_model_so_that_fleets_can_tell_engines_apart(
    model_store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "segmentation-3.0").symlink_to(model_store.root / "segmentation-3.0")
    settings = load_settings(model_dir=tmp_path, embedding_model="eres2netv2")
    with published(monkeypatch, {"eres2netv2": graph(FORMS["eres2netv2"])}):
        ModelStore.of(settings).pull("eres2netv2")
        loaded = load_diarizer("embedded", settings)
    assert [(info.name, info.role, info.state) for info in loaded.models] == [
        ("segmentation-3.0", "segmentation", "ready"), ("eres2netv2", "embedding", "ready"),
    ]  # fmt: skip
    silence = Audio(np.zeros(SAMPLE_RATE, dtype=np.float32))
    assert loaded.part.diarize(silence, SpeakerHints(), ignore).turns == ()
