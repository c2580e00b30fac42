"""``diarist transcribe --diarizer community-1`` from a folder of checkpoints to words with speakers."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from diarist.cli import main
from diarist.models import load_catalog
from diarist.models.checkpoint import read_tensors
from support import in_process_engine
from support.random_community_1 import NAMES, write_source


@pytest.mark.models
def test_a_call_is_transcribed_with_models_of_the_real_shapes(sample_recording, model_store, tmp_path, monkeypatch):
    segmentation = read_tensors(model_store.root / "segmentation-3.0" / "pytorch_model.bin")
    models = write_source(tmp_path / "source", segmentation=segmentation)
    catalog = load_catalog()
    monkeypatch.setattr("diarist.models.user_catalog.load_catalog", lambda: {**catalog, **models})
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "whisper-base").symlink_to(model_store.root / "whisper-base")
    monkeypatch.setenv("MODEL_DIR", str(folder))
    monkeypatch.setenv("MODEL_SOURCE_DIR", str(tmp_path / "source"))
    options = ("--diarizer", "community-1", "--offline", "--format", "json", "--num-speakers", "2", "--words")
    args = ["transcribe", str(sample_recording), *options]
    result = CliRunner().invoke(main, args, catch_exceptions=False, obj=in_process_engine.load)
    assert result.exit_code == 0, result.output
    segments = json.loads(result.stdout)["conversation"]
    assert {segment["speaker"] for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert sum(len(segment["words"]) for segment in segments) > 40
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted((*NAMES, "whisper-base"))
    assert sorted(path.name for path in (folder / NAMES[2] / "plda").glob("[!.]*")) == [
        "plda.npz",
        "xvec_transform.npz",
    ]
