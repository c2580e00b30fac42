"""The programs in ``examples/`` as their readers start them, with the real models and the real service."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.process import ServiceProcess, shared_service
from api.wire import FORM, Answer, call, recording

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))
RUN_S = 180
WORDS = "Hello"  # what the sample begins with


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / program), *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, timeout=RUN_S, check=False,
    )  # fmt: skip


@pytest.fixture
def sample(sample_recording: Path, tmp_path: Path) -> Path:
    """A copy of the sample in a folder of its own, because transcripts are written beside it."""
    return Path(shutil.copy(sample_recording, tmp_path / "meeting.wav"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model_store: object) -> Iterator[ServiceProcess]:
    """A service that may send webhooks to this machine."""
    command = (sys.executable, str(ROOT / "app.py"))
    folder = tmp_path_factory.mktemp("service")
    with shared_service(folder, command, "engine embedded is ready", ALLOWED_NETWORKS="127.0.0.0/8") as service:
        yield service


def delete_jobs(service: ServiceProcess) -> None:
    for job in call(service.address, "GET", "/v1/jobs").json["data"]:
        assert call(service.address, "DELETE", job["links"]["self"]).status == 204


class TestAllOfThem:
    @pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
    def test_it_is_short_and_says_how_to_start_it(self, program: Path) -> None:
        text = program.read_text("utf-8")
        assert len(text.splitlines()) < 40
        told = ast.get_docstring(ast.parse(text)) or ""
        assert f"python {program.name} " in told
        assert "\nNeeds: pip install " in told

    def test_the_page_lists_each_of_them(self) -> None:
        listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
        assert sorted(listed) == [path.name for path in PROGRAMS]
        assert len(listed) == 5


@pytest.mark.models
@pytest.mark.usefixtures("model_store")
class TestLibrary:
    def test_one_recording(self, sample: Path) -> None:
        done = run("library.py", sample)
        assert done.returncode == 0, done.stderr
        assert re.search(rf"^ +6\.\d\d SPEAKER_00: {WORDS}", done.stdout)
        assert "100%" in done.stderr
        assert WORDS in sample.with_suffix(".txt").read_text("utf-8")
        assert sample.with_suffix(".srt").read_text("utf-8").startswith("1\n00:00:0")

    def test_a_folder_is_resumed_and_survives_a_damaged_file(self, sample: Path, tmp_path: Path) -> None:
        damaged, results = sample.with_name("damaged.wav"), tmp_path / "transcripts"
        damaged.write_bytes(b"not a recording")
        done = run("batch_folder.py", sample.parent, results)
        assert done.returncode == 1
        assert "damaged.wav: " in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == "meeting.wav: 2 speakers, 30 s\n"
        (result,) = results.iterdir()
        assert len(json.loads(result.read_bytes())["conversation"]) > 5

        damaged.unlink()
        again = run("batch_folder.py", sample.parent, results)
        assert (again.returncode, again.stdout) == (0, ""), again.stderr

    def test_subtitles_with_names(self, sample: Path) -> None:
        done = run("subtitles.py", sample, "Diane", "Sheila")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(sample.with_suffix(suffix)) for suffix in (".srt", ".vtt")]
        for suffix in (".srt", ".vtt"):
            text = sample.with_suffix(suffix).read_text("utf-8")
            assert "Diane" in text
            assert "Sheila" in text
            assert "SPEAKER_" not in text


@pytest.mark.models
class TestService:
    def test_a_job_is_followed(self, service: ServiceProcess, sample: Path) -> None:
        host, port = service.address
        done = run("job_events.py", f"http://{host}:{port}", sample)
        assert done.returncode == 0, done.stderr
        (job,) = call(service.address, "GET", "/v1/jobs").json["data"]
        result = call(service.address, "GET", job["links"]["result"]).json["conversation"]
        assert done.stdout.splitlines() == [f"{each['speaker']}: {each['text']}" for each in result]
        delete_jobs(service)

    def test_a_job_that_fails_is_reported(self, service: ServiceProcess, sample: Path) -> None:
        sample.write_bytes(b"not a recording")
        host, port = service.address
        done = run("job_events.py", f"http://{host}:{port}", sample)
        assert done.returncode == 1
        assert "failed" in done.stderr
        delete_jobs(service)

    def test_a_webhook_is_verified(self, service: ServiceProcess, sample: Path) -> None:
        secret = subprocess.run(
            [sys.executable, "-m", "diarist", "keys", "webhook-secret"],
            env=os.environ | {"DATA_DIR": str(service.data)}, capture_output=True, text=True, timeout=60, check=True,
        ).stdout.strip()  # fmt: skip
        receiver = subprocess.Popen(
            [sys.executable, str(FOLDER / "webhook_receiver.py"), "0"],
            env=os.environ | {"DIARIST_WEBHOOK_SECRET": secret},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert receiver.stdout
            (port,) = re.findall(r":(\d+)$", receiver.stdout.readline().strip())
            assert forged(int(port)).status == 401
            body = recording(sample.read_bytes(), webhook_url=f"http://127.0.0.1:{port}/")
            job = call(service.address, "POST", "/v1/jobs", body, FORM).json
            assert receiver.stdout.readline() == f"job.succeeded {job['id']} {job['links']['result']}\n"
        finally:
            receiver.kill()
            receiver.communicate()
        delete_jobs(service)


def forged(port: int) -> Answer:
    """Return the answer of the receiver to a message with a signature by somebody else."""
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    return call(("127.0.0.1", port), "POST", "/", b'{"type": "job.succeeded"}', headers)
