"""Tests of the files of an exported recognizer, and that it runs without NeMo and PyTorch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from diarist.engines.device import COREML, CPU, Choice, Device
from diarist.engines.onnx import recognizer
from diarist.engines.onnx.mel_features import FeatureSettings
from diarist.engines.onnx.recognizer import read_vocabulary
from diarist.errors import EngineUnavailable
from diarist.models.exported_model import ExportedModel
from diarist.settings import load_settings

GPU = Device("cuda", 0, "cuda:0 (NVIDIA Big)")


def test_tokens_are_read_by_their_number_without_the_blank(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("▁the 1\n<unk> 0\ns 2\n▁ 3\n<blk> 4\n", encoding="utf-8")
    assert read_vocabulary(path) == ["<unk>", "▁the", "s", "▁"]


def test_single_characters_have_a_space(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("▁ 0\na 1\n' 2\n<blk> 3\n", encoding="utf-8")
    assert read_vocabulary(path) == [" ", "a", "'"]


@pytest.mark.parametrize("content", ["a\n", "a b\n", "\n"])
def test_what_is_no_list_of_tokens_is_refused(content, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011 - int() says which
        read_vocabulary(path)


def exported(quantization: str | None) -> ExportedModel:
    features = FeatureSettings(*([0] * len(fields(FeatureSettings))))
    return ExportedModel("parakeet", "tdt", "", "", (), 0.08, features, quantization, (), "1")


@pytest.mark.parametrize(
    ("quantization", "setting", "chosen", "expected"),
    [
        (None, "auto", GPU, GPU),
        (None, "cuda", GPU, GPU),
        (None, "cpu", CPU, CPU),
        ("int8", "auto", CPU, CPU),
        ("int8", "auto", GPU, CPU),
        ("int8", "coreml", COREML, COREML),
    ],
)
def test_int8_models_run_on_the_cpu(monkeypatch, quantization, setting, chosen, expected):
    monkeypatch.setattr(recognizer, "choose_here", lambda _settings, _library: Choice(chosen))
    choice = recognizer.device_for(load_settings(device=setting), exported(quantization))
    assert choice.device == expected
    assert ("Use the model in fp32" in (choice.notice or "")) == (chosen != expected)


def test_an_int8_model_on_a_gpu_that_was_asked_for_is_an_error(monkeypatch):
    monkeypatch.setattr(recognizer, "choose_here", lambda _settings, _library: Choice(GPU))
    with pytest.raises(EngineUnavailable, match=r"DEVICE=cuda:0: .*parakeet is in int8.*fp32"):
        recognizer.device_for(load_settings(device="cuda:0"), exported("int8"))


@pytest.mark.parametrize("module", ["recognizer", "diarizer"])
def test_neither_pytorch_nor_nemo_is_imported(module):
    program = (
        f"import sys, diarist.engines.onnx.{module}; "
        "print(*{'torch', 'nemo', 'omegaconf', 'lightning'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert loaded.stdout.split() == []


@pytest.mark.nemo
def test_exported_models_run_where_pytorch_and_nemo_are_not_installed(exported_settings, sample_recording, tmp_path):
    """Load a diarizer and a recognizer in a process that cannot import either library, and transcribe a recording."""
    program = """
import sys
for name in ("torch", "nemo", "omegaconf", "lightning"):
    sys.modules[name] = None
from pathlib import Path
from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.pipeline.transcription import transcribe
from diarist.settings import load_settings
from diarist.types import TranscribeOptions
settings = load_settings(
    recognizer="onnx", diarizer="onnx", onnx_asr_model="tdt", onnx_speaker_model="speaker", onnx_vad_model="frame_vad",
    model_dir=Path(sys.argv[1]), model_config_dir=Path(sys.argv[2]), cpu_threads=1,
)
engine = load_engine(settings)
said = transcribe(Path(sys.argv[3]), engine, TranscribeOptions(), lambda stage, done: None, DecodeLimits.of(settings))
print(said.diarization.diarizer, said.recognizer, [model.role for model in engine.models], len(said.words) > 0)
"""
    given = (exported_settings.model_dir, exported_settings.model_config_dir, sample_recording)
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, given)],
        check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split(maxsplit=1)[0] == "onnx"
    assert "['vad', 'embedding', 'recognition'] True" in run.stdout
