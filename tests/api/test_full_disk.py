"""The service on a disk that is full: a small file system of its own, which the tests mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from api.conftest import eventually
from api.process import ServiceProcess
from api.wire import FORM, call, diarize, recording

FILLER = "filler"


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if not (shutil.which("mount") and shutil.which("umount")):
        pytest.skip("there is no mount program, so no small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


def fill(disk: Path, pages_left: int = 0) -> None:
    """Use up all space but a few pages."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4_096))
        assert shutil.disk_usage(disk).free == 0
        file.truncate((file.tell() // 4_096 - pages_left) * 4_096)


def create_job(service: ServiceProcess, content: str) -> str:
    answer = call(service.address, "POST", "/v1/jobs", recording(content), FORM)
    assert answer.status == 202, answer
    path: str = answer.headers["location"]
    eventually(lambda: call(service.address, "GET", path).json["state"] == "succeeded", 30)
    return path


def readiness(service: ServiceProcess) -> tuple[int, str]:
    answer = call(service.address, "GET", "/health/ready")
    return answer.status, answer.json.get("reason", "")


@pytest.mark.slow
def test_a_deletion_on_a_full_disk_is_all_or_nothing(small_disk, start):
    service = start(DATA_DIR=small_disk / "data", MIN_FREE_MB=0)
    service.wait_for("is ready")
    path = create_job(service, json.dumps({"words": ["many words"] * 20_000}))
    kept = small_disk / "data" / "jobs" / path.rpartition("/")[2] / "recording"
    assert kept.exists()
    # The deletion of a job empties the write-ahead log, which has to grow for the next one.
    assert call(service.address, "DELETE", create_job(service, "{}")).status == 204
    fill(small_disk)
    answer = call(service.address, "DELETE", path)
    assert (answer.status, answer.json["error"]["code"]) == (507, "storage_full")
    assert str(small_disk) not in answer.body.decode()
    assert kept.exists()
    assert call(service.address, "GET", path).json["state"] == "succeeded"
    assert call(service.address, "GET", f"{path}/result").status == 200
    (small_disk / FILLER).unlink()
    assert call(service.address, "DELETE", path).status == 204
    assert not kept.exists()
    assert call(service.address, "GET", path).status == 404


@pytest.mark.slow
def test_a_full_disk_is_a_reason_not_to_be_ready(small_disk, start):
    service = start(DATA_DIR=small_disk / "data", MIN_FREE_MB=4)
    service.wait_for("is ready")
    assert readiness(service) == (200, "")
    fill(small_disk)
    eventually(lambda: readiness(service)[0] == 503)
    assert "disk space" in readiness(service)[1]
    assert "disk space" in " ".join(call(service.address, "GET", "/status").json["errors"])
    assert diarize(service.address).status == 507
    (small_disk / FILLER).unlink()
    eventually(lambda: readiness(service) == (200, ""))
    assert diarize(service.address).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("pages_left", [0, 3, 12, 30])
@pytest.mark.parametrize("again", [False, True], ids=["first start", "another start"])
def test_a_start_on_a_full_disk_ends_with_one_line(small_disk, start, pages_left, again):
    data = small_disk / "data"
    if again:
        earlier = start(DATA_DIR=data)
        assert earlier.address
        assert earlier.stop() == 0
        shutil.rmtree(data / "tmp", ignore_errors=True)
    fill(small_disk, pages_left)
    environment = os.environ | {
        "DATA_DIR": str(data), "LOG_FILE": str(data / "logs" / "service.log"), "FLASK_HOST": "127.0.0.1",
        "FLASK_PORT": "0", "MIN_FREE_MB": "0",
    }  # fmt: skip
    service = ServiceProcess(small_disk.parent, (sys.executable, "-m", "diarist.cli", "serve"), **environment)
    listens = service.wait_for("^diarist: |Listening on")[0] == "Listening on"
    code = service.stop() if listens else service.wait(15)
    said = "\n".join(service.log)
    assert "Traceback" not in said
    assert "Logging error" not in said
    if not listens:
        assert code == 1
        assert len([line for line in service.log if line.startswith("diarist: ")]) == 1
        assert "full" in service.log[-1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_lines_for_a_full_log_file_are_not_printed_unmasked(start):
    service = start(LOG_FILE="/dev/full", FLASK_DEBUG="1")
    secret = "dk_" + "S" * 12 + "_" + "s" * 43
    for number in range(3):
        call(service.address, "GET", f"/{number}?key={secret}", headers={"X-Request-ID": f"r-{number}"})
        service.wait_for(f"request=r-{number}")
    assert service.stop() == 0
    said = "\n".join(service.log)
    assert secret[-43:] not in said
    assert "Logging error" not in said
    assert "Traceback" not in said
    assert said.count("Log lines are missing from the log file /dev/full") == 1
