"""Two NeMo workers of one service: they return the same results, and either of them can be killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.conftest import eventually
from api.process import ServiceProcess
from api.wire import FORM, Answer, call, recording
from diarist.settings import Settings

pytestmark = pytest.mark.nemo

COMMAND = (sys.executable, str(Path(__file__).parents[2] / "app.py"))
READY_S = 240.0
ANSWER_S = 240.0


@pytest.fixture
def service(tmp_path: Path, nemo_settings: Settings, nemo_models: Mapping[str, Path]) -> Iterator[ServiceProcess]:
    """A service whose workers take longer to load than the lease; they must not be considered dead."""
    started = ServiceProcess(
        tmp_path / "service", COMMAND, ENGINE="nemo", NEMO_DEVICE="cpu", WORKERS=2, JOB_LEASE_S=4, HF_HUB_OFFLINE=1,
        MODEL_CONFIG_DIR=nemo_settings.model_config_dir, SORTFORMER_MODEL=nemo_settings.sortformer_model,
        NEMO_ASR_MODEL=nemo_models["tdt"],
    )  # fmt: skip
    yield started
    if started.process.poll() is None:
        started.stop()


def status(service: ServiceProcess) -> dict:
    return call(service.address, "GET", "/status").json


def post(service: ServiceProcess, content: bytes, hint: int) -> Answer:
    fields = {"num_speakers": hint, "words": "true", "details": "true"}
    return call(service.address, "POST", "/diarize", recording(content, **fields), FORM, ANSWER_S)


def without_timings(answer: Answer) -> dict:
    """Return the result without its timings, which differ each time."""
    assert answer.status == 200, answer.body
    return {name: value for name, value in answer.json.items() if name != "timings"}


def states(service: ServiceProcess) -> list[str]:
    return [worker["state"] for worker in status(service)["workers"]]


def test_two_workers_give_the_same_and_make_up_for_each_other(service, sample_recording):
    eventually(lambda: len(status(service)["models"]) == 4, READY_S)
    loading = status(service)
    assert (loading["status"], loading["nemo_components_loaded"], loading["device"]) == ("loading", False, None)
    assert {model["state"] for model in loading["models"]} == {"loading"}
    eventually(lambda: states(service) == ["ready", "ready"], READY_S)
    ready = status(service)
    assert (ready["status"], ready["nemo_components_loaded"], ready["device"]) == ("ready", True, "cpu")
    assert {model["name"] for model in ready["models"]} == {model["name"] for model in loading["models"]}
    assert not any("no heartbeat" in line for line in service.log)

    content = sample_recording.read_bytes()
    hints = (2, 3, 6, 2, 3, 6)
    alone = {hint: without_timings(post(service, content, hint)) for hint in set(hints)}
    with ThreadPoolExecutor(len(hints)) as pool:
        waiting = [pool.submit(post, service, content, hint) for hint in hints]
        eventually(lambda: status(service)["jobs"]["running"] == 2, ANSWER_S)
        pids = [int(line.rpartition(" ")[2]) for line in service.log if "started as process" in line]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        assert [without_timings(each.result()) for each in waiting] == [alone[hint] for hint in hints]
    assert status(service)["status"] == "ready"
    assert service.stop() == 0
    assert service.left_behind() == []
