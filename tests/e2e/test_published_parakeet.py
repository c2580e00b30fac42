"""A service and a command line that fetch a Parakeet model from a hub at start, and transcribe with it.

The model has the layout of the published one and random weights. It is described in a catalog of its own, because the
hashes in Diarist's catalog are those of the published weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from api.process import ServiceProcess
from api.wire import FORM, call, recording
from diarist.models import ModelStore, load_catalog
from support import published_tdt
from support.loopback_hub import LoopbackHub, serving_hub

pytestmark = [pytest.mark.models, pytest.mark.slow]

REPOSITORY = "somebody/my-parakeet-onnx"
NAMES = {"my-parakeet": "parakeet-tdt-0.6b-v3", "my-parakeet-fp32": "parakeet-tdt-0.6b-v3-fp32"}
UNTESTED = "The developers of Diarist have never run my-parakeet with its published weights"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with serving_hub({REPOSITORY: published_tdt.repository()}) as hub:
        yield hub


@pytest.fixture
def environment(hub: LoopbackHub, model_store: ModelStore, tmp_path: Path) -> Mapping[str, str]:
    """Settings with an empty MODEL_DIR, the hub, and the diarizer's models in a source folder."""
    files = hub.repositories[REPOSITORY]
    real = load_catalog()
    entries = [
        replace(published_tdt.with_these_files(real[model], files), name=name, hub=REPOSITORY)
        for name, model in NAMES.items()
    ]
    (tmp_path / "models.toml").write_text(published_tdt.catalog_text(entries), encoding="utf-8")
    return {
        "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hub"),
        "MODEL_DIR": str(tmp_path / "models"), "MODEL_SOURCE_DIR": str(model_store.root),
        "MODEL_CATALOG": str(tmp_path / "models.toml"),
    }  # fmt: skip


def test_a_service_fetches_the_model_and_transcribes_with_it(
    environment: Mapping[str, str], tmp_path: Path, sample_recording: Path
) -> None:
    command = (sys.executable, str(ROOT / "app.py"))
    service = ServiceProcess(tmp_path / "service", command, MODEL="my-parakeet", **environment)
    try:
        service.wait_for("engine embedded is ready", 180)
        assert any("recognizer onnx with my-parakeet" in line for line in service.log)
        assert any(UNTESTED in line for line in service.log)
        status = call(service.address, "GET", "/status").json
        assert {"name": "my-parakeet", "role": "recognition", "licence": "CC-BY-4.0", "state": "ready"} in status[
            "models"
        ]
        assert [model["name"] for model in status["models"]].count("my-parakeet") == 1
        form = recording(sample_recording.read_bytes(), details="true", words="true")
        answer = call(service.address, "POST", "/diarize", form, FORM, 120).json
        assert answer["recognizer"] == "my-parakeet"
        assert answer["speakers"] == ["SPEAKER_00", "SPEAKER_01"]
        words = [word for utterance in answer["conversation"] for word in utterance["words"]]
        assert len(words) > 10
        assert all(0.0 <= word["start_time"] < word["end_time"] <= 30.0 for word in words)
        assert service.stop() == 0
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.wait()


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_fetches_the_model_and_transcribes_with_it(
    name: str, environment: Mapping[str, str], tmp_path: Path, sample_recording: Path
) -> None:
    command = [sys.executable, "-m", "diarist.cli", "transcribe", str(sample_recording), "--model", name,
               "--format", "json", "--details", "--words", "-v"]  # fmt: skip
    run = subprocess.run(
        command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=180,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert f"never run {name} with its published weights" in run.stderr
    said = json.loads(run.stdout)
    assert said["recognizer"] == name
    assert sum(len(utterance["words"]) for utterance in said["conversation"]) > 10
    assert {utterance["speaker"] for utterance in said["conversation"]} == {"SPEAKER_00", "SPEAKER_01"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("my-parakeat", "MODEL: there is no model 'my-parakeat'. Did you mean my-parakeet"),
        ("parakeet-tdt-0.6b-v3", "needs the recognizer onnx, but RECOGNIZER is whisper"),
    ],
)
def test_a_model_that_cannot_be_used_ends_the_start_with_one_line(
    model: str, message: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    given = {**os.environ, **environment, "MODEL": model, "DATA_DIR": str(tmp_path / "data"), "FLASK_PORT": "0"}
    if "RECOGNIZER" in message:
        given["RECOGNIZER"] = "whisper"
    for command in (["serve"], ["transcribe", __file__]):
        run = subprocess.run(
            [sys.executable, "-m", "diarist.cli", *command], env=given, cwd=tmp_path, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert run.returncode == 2, run.stderr
        assert run.stderr.startswith("diarist: ")
        assert message in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
    doctor = subprocess.run(
        [sys.executable, "-m", "diarist.cli", "doctor", "--json"], env=given, cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert doctor.returncode == 1
    findings = {each["check"]: each for each in json.loads(doctor.stdout)["findings"]}
    for check in ("models", "engine"):
        assert findings[check]["level"] == "error"
        assert message in findings[check]["message"]
    assert "Traceback" not in doctor.stdout + doctor.stderr
