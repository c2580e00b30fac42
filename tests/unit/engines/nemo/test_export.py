"""What is exported says what NeMo says, on real speech; what cannot be exported is refused, and leaves nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from diarist.cli import main
from diarist.engines.onnx.diarizer import OnnxSpeakerEncoder, OnnxSpeechDetector
from diarist.engines.onnx.mel_features import MelFeatures
from diarist.engines.onnx.model_lookup import locate
from diarist.engines.onnx.recognizer import OnnxRecognizer
from diarist.engines.onnx.session import open_graph
from diarist.errors import ConfigurationError, InvalidOption, ModelUnavailable
from diarist.models import exported_model
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Span

pytestmark = pytest.mark.nemo

RECOGNIZERS = ("ctc", "character_ctc", "rnnt", "tdt", "hybrid")
OTHERS = ("speaker", "frame_vad")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return load_settings(model_dir=tmp_path_factory.mktemp("models"), cpu_threads=1)


@pytest.fixture(scope="module")
def folders(nemo_models, settings):
    """A folder for each kind, exported as the command does it."""
    from diarist.engines.nemo.export import ExportRequest, export

    return {
        name: export(ExportRequest(str(nemo_models[name]), name=name), settings) for name in (*RECOGNIZERS, *OTHERS)
    }


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, rate = soundfile.read(sample_recording, dtype="float32")
    assert rate == SAMPLE_RATE
    return Audio(samples)


@pytest.fixture
def nemo(nemo_models, settings):
    """A model in NeMo, as the NeMo engine has it."""
    from diarist.engines.nemo.device import Runtime
    from diarist.engines.nemo.loading import load_model

    def load(name):
        role = {"speaker": "embedding", "frame_vad": "vad"}.get(name, "recognition")
        runtime = Runtime.of(settings.model_copy(update={"nemo_device": "cpu", "nemo_precision": "fp32"}))
        return load_model(str(nemo_models[name]), role, settings, runtime).model

    return load


def opened(folder):
    described = exported_model.read(folder)
    return open_graph(folder / "model.onnx", 1), MelFeatures.load(folder, described.features), described


def quiet(_stage, _done):
    pass


def heard_by_nemo(model, samples):
    import torch

    with torch.inference_mode():
        return model.preprocessor(input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)]))


@pytest.mark.parametrize("name", [*RECOGNIZERS, *OTHERS])
def test_features_are_those_of_nemo(name, folders, nemo, call):
    described = exported_model.read(folders[name])
    own = MelFeatures.load(folders[name], described.features).normalized(call.samples)
    wanted, length = heard_by_nemo(nemo(name), call.samples)
    assert len(own) == int(length[0]) == 3_000
    apart = np.abs(own.T - wanted[0, :, : len(own)].numpy())
    # NeMo adds up thousands of frames in single precision; against double precision it is further off than this
    assert apart.mean() < 1e-4
    assert apart.max() < 2e-3


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_tokens_and_their_times_are_those_of_nemo(name, folders, nemo, call):
    piece = call.cut(Span(5.0, 25.0)).samples
    model = nemo(name)
    said = model.transcribe([piece], timestamps=True, verbose=False)[0]
    described = exported_model.read(folders[name])
    tokens = OnnxRecognizer(folders[name], described, 1)._read(piece)
    # of a CTC token NeMo says where the one before it was heard and where it was, of others where it was
    edge = "end_offset" if described.kind == "ctc" else "start_offset"
    characters = said.timestamp["char"]
    frames = [round(token.start / described.frame_step) for token in tokens]
    assert len(tokens) == len(characters)
    for frame, character in zip(frames, characters, strict=True):
        if character["char"] != "'":  # NeMo moves marks to where the letter before them is
            assert frame == int(character[edge])
    assert len(tokens) > 50
    assert all(0 < token.confidence <= 1 for token in tokens)
    if described.kind != "ctc":
        assert [token.id for token in tokens] == said.y_sequence.tolist()


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_the_text_is_that_of_nemo(name, folders, nemo, call):
    piece = call.cut(Span(5.0, 25.0))
    wanted = nemo(name).transcribe([piece.samples], verbose=False)[0].text.replace("⁇", "")
    recognizer = OnnxRecognizer(folders[name], exported_model.read(folders[name]), 1)
    found = recognizer.recognize(piece, (Span(0.0, piece.duration),), None, quiet)
    text = "".join(word.text for word in found.words)
    if name == "character_ctc":  # NeMo writes nothing between a letter and an apostrophe
        text, wanted = "".join(text.split()), "".join(wanted.split())
    assert text.split() == wanted.split()
    assert len(found.words) > 20


def test_encoders_say_what_nemo_says(folders, nemo, call):
    import torch

    for name, output in (("ctc", "logprobs"), ("character_ctc", "logprobs"), ("tdt", "outputs")):
        model = nemo(name)
        features, length = heard_by_nemo(model, call.samples)
        with torch.inference_mode():
            wanted, lengths = model.encoder(audio_signal=features, length=length)
            if output == "logprobs":
                wanted = model.decoder(encoder_output=wanted).transpose(1, 2)
        graph = folders[name] / ("model.onnx" if output == "logprobs" else "encoder-model.onnx")
        inputs = {"audio_signal": features.numpy(), "length": length.numpy()}
        found = open_graph(graph, 1).run([output], inputs)[0]
        found = found.transpose(0, 2, 1) if output == "logprobs" else found
        frames = int(lengths[0])
        found, wanted = found[:, :, :frames], wanted[:, :, :frames].numpy()
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_probability_of_speech_is_that_of_nemo_in_blocks_of_any_length(folders, nemo, call):
    import torch

    with torch.inference_mode():
        logits = nemo("frame_vad").forward(
            input_signal=torch.from_numpy(call.samples)[None], input_signal_length=torch.tensor([len(call.samples)])
        )
    wanted = logits.softmax(-1)[0, :, 1].numpy()
    session, features, described = opened(folders["frame_vad"])
    assert described.frame_step == 0.02
    for block in (3_000, 217):
        found = OnnxSpeechDetector(session, features, described.frame_step, block).probability(call, quiet)
        assert found.shape == (1_500,)
        assert np.abs(found - wanted[:1_500]).max() < 1e-3
    assert found.std() > 1e-3


def test_voices_are_those_of_nemo(folders, nemo, call):
    import torch

    model = nemo("speaker")
    windows = [Span(0.0, 3.0), Span(7.013, 8.51), Span(14.0, 14.5), Span(8.0, 9.5)]
    session, features, _ = opened(folders["speaker"])
    found = OnnxSpeakerEncoder(session, features).embed(call, windows, quiet)
    for window, embedding in zip(windows, found, strict=True):
        samples = torch.from_numpy(call.cut(window).samples)[None]
        with torch.inference_mode():
            _, wanted = model.forward(input_signal=samples, input_signal_length=torch.tensor([samples.shape[1]]))
        unit, other = embedding / np.linalg.norm(embedding), wanted[0].numpy() / np.linalg.norm(wanted[0].numpy())
        assert unit @ other > 0.9999
        assert np.abs(embedding - wanted[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("name", [*RECOGNIZERS, *OTHERS])
def test_a_folder_tells_what_it_is(name, folders):
    described = exported_model.read(folders[name])
    assert described.name == name
    assert described.source.endswith(f"{name}.nemo")
    assert "/" not in described.source
    visible = {path.name for path in folders[name].iterdir() if not path.name.startswith(".")}
    assert {file.name for file in described.files} == visible - {"diarist.json"}
    assert described.info.role in ("recognition", "embedding", "vad")
    if name in RECOGNIZERS:
        assert described.languages == ("en",)


def test_weights_lie_in_one_file_beside_the_graph(folders):
    for name in ("ctc", "speaker"):
        assert {path.name for path in folders[name].glob("model*")} == {"model.onnx", "model.onnx.data"}
        assert (folders[name] / "model.onnx.data").stat().st_size > (folders[name] / "model.onnx").stat().st_size


def test_weights_in_a_file_each_as_of_models_above_two_gigabytes_are_gathered(folders, tmp_path):
    import onnx

    from diarist.engines.nemo.onnx_graphs import externalize_weights

    model = onnx.load(str(folders["ctc"] / "model.onnx"))
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model, str(path), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=16,
        convert_attribute=True,
    )  # fmt: skip
    assert len(list(tmp_path.iterdir())) > 20
    externalize_weights(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    inputs = {
        "audio_signal": np.random.default_rng(0).standard_normal((1, 80, 200)).astype(np.float32),
        "length": np.array([200]),
    }
    before, after = (open_graph(graph, 1).run(None, inputs)[0] for graph in (folders["ctc"] / "model.onnx", path))
    assert np.array_equal(before, after)


def test_int8_is_smaller_and_still_recognizes(nemo_models, settings, folders, call, tmp_path):
    from diarist.engines.nemo.export import ExportRequest, export

    folder = export(ExportRequest(str(nemo_models["ctc"]), tmp_path, "small", "int8"), settings)
    described = exported_model.read(folder)
    assert described.quantization == "int8"
    assert {path.name for path in folder.glob("*.onnx")} == {"model.int8.onnx"}
    size, whole = (sum(path.stat().st_size for path in at.glob("model*")) for at in (folder, folders["ctc"]))
    assert size < whole
    found = OnnxRecognizer(folder, described, 1).recognize(call, (Span(5.0, 25.0),), None, quiet)
    assert len(found.words) > 10


def test_a_second_export_replaces_the_first_and_what_was_left_is_removed(nemo_models, settings, tmp_path):
    from diarist.engines.nemo.export import ExportRequest, export

    wish = ExportRequest(str(nemo_models["frame_vad"]), tmp_path, "vad")
    folder = export(wish, settings)
    (folder / "model.onnx").write_bytes(b"damaged")
    (folder / "left").write_bytes(b"of before")
    (tmp_path / ".export-killed").mkdir()
    assert export(wish, settings) == folder
    assert not (folder / "left").exists()
    locate(settings, str(folder), ("frame_vad",), "ONNX_VAD_MODEL")
    assert {path.name for path in tmp_path.iterdir()} <= {"vad", ".lock"}


@pytest.mark.parametrize("name", ["sortformer", "segment_vad"])
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(name, nemo_models, settings, tmp_path):
    from diarist.engines.nemo.export import ExportRequest, export

    with pytest.raises(ConfigurationError, match="cannot be exported: only CTC, RNN-T and TDT"):
        export(ExportRequest(str(nemo_models[name]), tmp_path, "x"), settings)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_published_sortformer_is_refused_before_it_is_fetched(settings):
    from diarist.engines.nemo.export import ExportRequest, export

    with pytest.raises(ConfigurationError, match="cannot be exported"):
        export(ExportRequest("nvidia/diar_streaming_sortformer_4spk-v2.1"), settings)


def test_a_model_whose_graph_would_say_something_else_is_refused(nemo, tmp_path, monkeypatch):
    import torch

    from diarist.engines.nemo import export_formats

    model = nemo("ctc")
    honest = type(model).forward_for_export
    monkeypatch.setattr(type(model), "forward_for_export", lambda *given, **named: honest(*given, **named) + 1.0)
    with torch.inference_mode(), pytest.raises(ConfigurationError, match=r"differs from NeMo's by"):
        export_formats.write(model, "ctc", "x", tmp_path, None, lambda _step: None)


def test_a_tdt_model_with_durations_of_its_own_is_refused(nemo):
    from diarist.engines.nemo import export_formats

    model = nemo("tdt")
    assert export_formats.kind_of(model, "x") == "tdt"
    model.decoding.durations = [0, 2, 4]
    with pytest.raises(ConfigurationError, match=r"durations \[0, 2, 4\]"):
        export_formats.kind_of(model, "x")


def test_features_of_another_kind_are_refused(nemo, tmp_path):
    from diarist.engines.nemo import export_formats

    model = nemo("ctc")
    model.preprocessor.featurizer.normalize = "all_features"
    with pytest.raises(ConfigurationError, match="unsupported features"):
        export_formats.write(model, "ctc", "x", tmp_path, None, lambda _step: None)


def test_a_folder_of_something_else_is_never_replaced(nemo_models, settings, tmp_path):
    from diarist.engines.nemo.export import ExportRequest, export

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    with pytest.raises(InvalidOption, match="is not an exported model"):
        export(ExportRequest(str(nemo_models["ctc"]), tmp_path, "mine"), settings)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "mine"
    for name in ("", "..", "a/b", ".hidden"):
        with pytest.raises(InvalidOption, match="cannot be the name"):
            export(ExportRequest(str(nemo_models["ctc"]), tmp_path, name or "."), settings)


def test_int8_of_a_speaker_model_is_refused(nemo_models, settings, tmp_path):
    from diarist.engines.nemo.export import ExportRequest, export

    with pytest.raises(InvalidOption, match="int8 is available only for recognizers"):
        export(ExportRequest(str(nemo_models["speaker"]), tmp_path, "x", "int8"), settings)


def test_a_disk_without_room_is_told_before_anything_is_written(nemo_models, settings, tmp_path, monkeypatch):
    from diarist.engines.nemo.export import ExportRequest, export

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    with pytest.raises(ModelUnavailable, match=r"needs \d+ MB .* where 1 MB are free"):
        export(ExportRequest(str(nemo_models["ctc"]), tmp_path, "x"), settings)
    assert not (tmp_path / "x").exists()


def test_the_command_exports(nemo_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["models", "export", str(nemo_models["tdt"]), "--to", "there", "--name", "mine"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine: ready in there/mine\n"
    assert json.loads(Path("there/mine/config.json").read_text())["model_type"] == "nemo-conformer-tdt"


def test_the_command_names_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(main, ["models", "export", "./nothing.nemo"])
    assert result.exit_code in (2, 3)
    assert "nothing.nemo" in result.stderr
    assert "Traceback" not in result.output
