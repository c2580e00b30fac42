"""Fixtures: the application in this process, and the service in its own, each with real jobs and a scripted engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.process import ServiceProcess
from api.scripted_service import COMMAND
from api.wire import FORM, recording
from diarist.api import create_app
from diarist.jobs.db.job_store import open_store
from diarist.jobs.service import JobService
from diarist.settings import Settings


def eventually(condition: Callable[[], object], timeout: float = 15) -> None:
    """Wait until ``condition`` is true. Fail if it is not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("api")
    return Settings(
        _env_file=None,  # type: ignore[call-arg]  # a parameter of pydantic-settings, not a field
        data_dir=folder / "data", log_file=folder / "log", max_upload_mb=1, max_waiting=8,
        max_listeners=2, http_threads=12, min_free_mb=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def jobs(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    engine = tmp_path_factory.mktemp("engine") / "state"
    engine.write_text("ready")
    with pytest.MonkeyPatch.context() as patch, closing(open_store(settings)) as store:
        patch.setenv("SCRIPTED_ENGINE", str(engine))
        service = JobService(settings, store, COMMAND)
        service.start()
        settings.temp_dir.mkdir(parents=True, exist_ok=True)
        try:
            eventually(lambda: service.pool_status().state == "ready", 60)
            yield service
        finally:
            service.stop()


@pytest.fixture(scope="session")
def app(settings: Settings, jobs: JobService) -> APIFlask:
    return create_app(settings, jobs)


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient, settings: Settings) -> Iterator[Callable[..., Any]]:
    """``post(body=None, **fields)``: sends a valid request unless a body is given. No file may remain afterwards."""

    def send(body: bytes | None = None, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
        return client.post("/diarize", data=body or recording(**fields), headers=FORM | (headers or {}))

    yield send
    assert [path for folder in (settings.temp_dir, settings.data_dir / "jobs") for path in folder.glob("*")] == []


@pytest.fixture
def make(client: FlaskClient, jobs: JobService, settings: Settings) -> Iterator[Callable[..., Any]]:
    """``make(content="{}", **fields)``: creates a job by ``POST /v1/jobs``. It is deleted after the test."""
    made: list[str] = []

    def send(content: bytes | str = "{}", headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", data=recording(content, **fields), headers=FORM | (headers or {}))
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.get_json()
        made.append(job["id"])
        return job

    yield send
    for job_id in made:
        jobs.delete(job_id)
    eventually(
        lambda: not [path for folder in (settings.temp_dir, settings.data_dir / "jobs") for path in folder.glob("*")]
    )


@pytest.fixture
def done(jobs: JobService) -> Callable[[str], str]:
    """``done(job_id)``: waits for the end of a job, and returns its state."""
    return lambda job_id: jobs.wait(job_id, 20).state.value


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """``start(**settings)``: starts a service for one test."""
    started: list[ServiceProcess] = []

    def run(folder: Path = tmp_path, **options: Any) -> ServiceProcess:
        started.append(ServiceProcess(folder, **options))
        return started[-1]

    yield run
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that tests share. It accepts uploads of up to 1 MB."""
    service = ServiceProcess(
        tmp_path_factory.mktemp("server"),
        MAX_UPLOAD_MB=1,
        MAX_WAITING=4,
        MAX_LISTENERS=2,
        HTTP_THREADS=8,
        MIN_FREE_MB=0,
    )
    service.wait_for("is ready")
    yield service
    assert service.stop() == 0
    assert service.left_behind() == []
