"""The service with NeMo as users start it: with its command and settings, real recordings and small NeMo models."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.process import ServiceProcess, shared_service
from api.wire import FORM, Address, Answer, call, recording
from diarist.settings import Settings

pytestmark = pytest.mark.nemo

COMMAND = (sys.executable, str(Path(__file__).parents[2] / "app.py"))
READY = r"The engine (\w+) is ready"
READY_S = 180.0
ANSWER_S = 180.0
SEGMENT = ["speaker", "start_time", "end_time", "text"]


def options(settings: Settings) -> dict[str, object]:
    """Return the environment variables for the engine of the tests."""
    return {
        "ENGINE": "nemo",
        "NEMO_DEVICE": "cpu",
        "MODEL_CONFIG_DIR": settings.model_config_dir,
        "SORTFORMER_MODEL": settings.sortformer_model,
        "HF_HUB_OFFLINE": 1,
        "CPU_THREADS": 1,
    }


@pytest.fixture
def start(tmp_path: Path, nemo_settings: Settings) -> Iterator[Callable[..., ServiceProcess]]:
    started: list[ServiceProcess] = []

    def run(**changes: object) -> ServiceProcess:
        folder = tmp_path / f"service{len(started)}"
        started.append(ServiceProcess(folder, COMMAND, **(options(nemo_settings) | changes)))
        return started[-1]

    yield run
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nemo_settings: Settings) -> Iterator[ServiceProcess]:
    with shared_service(tmp_path_factory.mktemp("shared"), COMMAND, READY, **options(nemo_settings)) as service:
        yield service


def post(address: Address, content: bytes, **fields: object) -> Answer:
    return call(address, "POST", "/diarize", recording(content, **fields), FORM, ANSWER_S)


def test_a_recording_is_answered_by_the_contract(service, sample_recording, nemo_settings):
    status = call(service.address, "GET", "/status").json
    assert status["status"] == "ready"
    assert status["nemo_components_loaded"] is True
    assert status["engine"] == "nemo"
    assert status["device"] == "cpu"
    assert {model["role"] for model in status["models"]} == {"recognition", "diarization", "vad", "embedding"}
    answer = post(service.address, sample_recording.read_bytes())
    assert answer.status == 200
    segments = answer.json["conversation"]
    assert segments
    assert all(list(segment) == SEGMENT for segment in segments)
    times = [(segment["start_time"], segment["end_time"]) for segment in segments]
    assert times == sorted(times)
    assert all(0 <= start <= end <= 30.1 for start, end in times)


@pytest.mark.parametrize(("hint", "diarizer"), [(2, "sortformer"), (6, "clustering")])
def test_the_answer_says_which_diarizer_ran(service, sample_recording, hint, diarizer):
    answer = post(service.address, sample_recording.read_bytes(), num_speakers=hint, details="true")
    assert answer.status == 200
    assert answer.json["diarizer"] == diarizer
    assert answer.json["device"] == "cpu"
    assert {timing["stage"] for timing in answer.json["timings"]} >= {"diarization", "recognition"}


def test_parallel_requests_give_what_serial_ones_give(service, sample_recording):
    content = sample_recording.read_bytes()
    hints = (2, 3, 6, 2, 3, 6)
    alone = {hint: post(service.address, content, num_speakers=hint, words="true").json for hint in set(hints)}
    with ThreadPoolExecutor(len(hints)) as pool:
        answers = list(pool.map(lambda hint: post(service.address, content, num_speakers=hint, words="true"), hints))
    assert [answer.json for answer in answers] == [alone[hint] for hint in hints]


def test_silence_is_an_empty_conversation(service, tmp_path):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000), 16_000)
    answer = post(service.address, (tmp_path / "silence.wav").read_bytes())
    assert (answer.status, answer.json) == (200, {"conversation": []})


def test_the_service_answers_while_nemo_is_loaded(start):
    service = start()
    status = call(service.address, "GET", "/status").json
    assert status["status"] == "loading"
    assert status["nemo_components_loaded"] is False
    service.wait_for(READY, READY_S)
    assert call(service.address, "GET", "/status").json["status"] == "ready"


def test_a_worker_that_is_killed_comes_back_and_does_its_job(service, sample_recording):
    alone = post(service.address, sample_recording.read_bytes()).json
    pid = next(line.rpartition(" ")[2] for line in reversed(service.log) if "started as process" in line)
    claimed = sum("Job claimed" in line for line in service.log)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, service.address, sample_recording.read_bytes())
        deadline = time.monotonic() + 30
        while sum("Job claimed" in line for line in list(service.log)) == claimed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(int(pid), signal.SIGKILL)
        assert waiting.result().json == alone


def test_what_is_wrong_with_a_model_is_said_in_the_status_and_the_log(start, tmp_path, nemo_models):
    broken = tmp_path / "broken.nemo"
    broken.write_bytes(nemo_models["tdt"].read_bytes()[:1_000])
    service = start(NEMO_ASR_MODEL=broken)
    line = service.wait_for(r"The engine cannot be loaded: (.*)", READY_S)[1]
    assert str(broken) in line
    status = call(service.address, "GET", "/status").json
    assert status["status"] == "error"
    assert status["nemo_components_loaded"] is False
    assert line.replace(f"{tmp_path}/", "") in " ".join(status["errors"]), "callers see no paths of the machine"
    answer = post(service.address, b"RIFF")
    assert answer.status == 503


def test_whisper_goes_with_sortformer_and_a_nemo_model_with_the_embedded_diarizer(start, sample_recording, model_store):
    mixed = start(RECOGNIZER="whisper", DIARIZER="sortformer")
    mixed.wait_for(READY, READY_S)
    answer = post(mixed.address, sample_recording.read_bytes(), details="true")
    assert (answer.json["diarizer"], answer.json["recognizer"]) == ("sortformer", "whisper-base")
    assert "chicago" in " ".join(segment["text"] for segment in answer.json["conversation"]).lower()
    mixed.stop()
    other = start(DIARIZER="embedded")
    other.wait_for(READY, READY_S)
    answer = post(other.address, sample_recording.read_bytes(), details="true")
    assert answer.json["diarizer"] == "embedded"
    assert len(answer.json["speakers"]) == 2


def diarist(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "diarist.cli", *arguments]
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=READY_S
    )


def test_the_command_line_runs_on_nemo_too(nemo_settings, sample_recording, tmp_path):
    shutil.copy(sample_recording, tmp_path / "call.wav")
    done = diarist(tmp_path, "transcribe", "call.wav", "--format", "rttm", "--output", ".", **options(nemo_settings))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "call.rttm").read_text().startswith("SPEAKER ")


def test_without_any_model_the_command_line_ends_with_a_message(sample_recording, tmp_path):
    """Offline and with empty caches, the message names the model and the ways to provide it."""
    empty = {"HF_HUB_OFFLINE": 1, "HF_HOME": tmp_path / "hub", "NEMO_CACHE_DIR": tmp_path / "nemo"}
    done = diarist(tmp_path, "transcribe", str(sample_recording), ENGINE="nemo", NEMO_DEVICE="cpu", **empty)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    for needed in ("nvidia/diar_streaming_sortformer_4spk-v2.1", ".nemo", "HF_HUB_OFFLINE"):
        assert needed in message


def test_models_can_be_fetched_before_they_are_needed(nemo_settings, tmp_path):
    done = diarist(tmp_path, "models", "pull", **options(nemo_settings))
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "sortformer", "stt_en_tdt", "frame_vad", "speaker",
    ]  # fmt: skip
    assert all(Path(line.partition("ready in ")[2]).is_file() for line in done.stdout.splitlines())


def test_a_model_that_cannot_be_fetched_ends_with_a_message(tmp_path):
    empty = {"HF_HOME": tmp_path / "hub", "NEMO_CACHE_DIR": tmp_path / "nemo"}
    done = diarist(tmp_path, "models", "pull", "--offline", ENGINE="nemo", **empty)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "nvidia/diar_streaming_sortformer_4spk-v2.1" in done.stderr
