"""``GET /status``, the health checks and what else answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from api.conftest import eventually
from api.scripted_service import COMMAND
from api.wire import FORM, recording
from diarist import __version__
from diarist.api import create_app
from diarist.api.status_cache import StatusCache
from diarist.errors import ConfigurationError, ServiceError, StoreUnavailable
from diarist.jobs.db.job_store import open_store
from diarist.jobs.model import Job, JobSpec, JobState, PoolStatus, WorkerReport
from diarist.jobs.service import JobService
from diarist.types import ModelInfo


class Wrapper:
    """Passes everything on to ``original``, except for the attributes that a test sets."""

    def __init__(self, original) -> None:
        self._original = original

    def __getattr__(self, name: str):
        return getattr(self._original, name)


class Reporting(Wrapper):
    """The real job service with changes to what its workers report, and with a store of which a test sets methods."""

    def __init__(self, jobs, **changes: object) -> None:
        super().__init__(jobs)
        self._changes = changes
        self.store = Wrapper(jobs.store)

    def pool_status(self):
        return replace(self._original.pool_status(), **self._changes)


def test_ready(client):
    answer = client.get("/status")
    assert answer.status_code == 200
    body = answer.get_json()
    assert 0 <= body.pop("age_s") < 60
    assert body == {
        "status": "ready",
        "nemo_components_loaded": True,
        "errors": [],
        "engine": "embedded",
        "device": "cpu",
        "workers": [{"state": "ready", "device": "cpu"}],
        "models": [{"name": "scripted", "role": "diarization", "licence": "Apache-2.0", "state": "ready"}],
        "version": __version__,
        "jobs": {"waiting": 0, "running": 0},
    }


@pytest.mark.parametrize(
    ("changes", "ready"),
    [
        ({"state": "loading", "models": ()}, 503),
        ({"state": "loading", "models": (ModelInfo("a", "vad", "MIT", "ready"),)}, 503),
        ({"state": "error", "errors": ("Run `diarist models pull`.",)}, 503),
        ({"state": "ready", "models": (ModelInfo("a", "vad", "MIT", "missing"),)}, 200),
    ],
)
def test_not_all_loaded(settings, jobs, changes, ready):
    client = create_app(settings, Reporting(jobs, **changes)).test_client()
    answer = client.get("/status")
    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["status"], body["nemo_components_loaded"]) == (changes["state"], False)
    assert body["errors"] == list(changes.get("errors", ()))
    assert client.get("/health/ready").status_code == ready
    assert client.get("/health/live").status_code == 200


def test_one_worker_of_several_that_is_ready_is_enough(settings, jobs):
    now = datetime.now(UTC)
    pool = PoolStatus.from_reports(
        (
            WorkerReport("a", 1, "error", (), ("No disk.",), now),
            WorkerReport("b", 2, "ready", (ModelInfo("m", "vad", "MIT"),), (), now, "cuda:1 (a card)"),
            WorkerReport("c", 3, "loading", (), (), now),
        )
    )
    client = create_app(
        settings, Reporting(jobs, **{f.name: getattr(pool, f.name) for f in fields(pool)})
    ).test_client()
    body = client.get("/status").get_json()
    assert (body["status"], body["nemo_components_loaded"], body["errors"]) == ("ready", True, ["No disk."])
    assert body["device"] == "cuda:1 (a card)"
    assert body["workers"] == [
        {"state": "error", "device": None},
        {"state": "ready", "device": "cuda:1 (a card)"},
        {"state": "loading", "device": None},
    ]
    assert client.get("/health/ready").status_code == 200
    assert client.post("/diarize", data=recording("{}"), headers=FORM).status_code == 200


def test_an_engine_in_error_refuses_at_once(settings, jobs):
    client = create_app(settings, Reporting(jobs, state="error", errors=("Do this.",))).test_client()
    answer = client.post("/diarize")
    assert answer.status_code == 503
    assert answer.get_json()["code"] == "engine_unavailable"
    assert "Do this." in answer.get_json()["error"]
    assert int(answer.headers["Retry-After"]) > 0


def test_status_answers_without_the_store(settings, jobs):
    broken = Reporting(jobs, state="error", errors=("The disk is gone.",))

    def counts():
        raise StoreUnavailable("The disk is gone.", public="The disk is gone.")

    broken.store.count_by_state = counts
    answer = create_app(settings, broken).test_client().get("/status")
    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["status"], body["errors"], body["age_s"]) == ("error", ["The disk is gone."], None)


def test_a_store_that_refuses_leaves_what_was_known(settings, jobs):
    breaking = Reporting(jobs)
    client = create_app(settings, breaking).test_client()
    known = client.get("/status").get_json()

    def refuse():
        raise StoreUnavailable("The disk under /secret/place is gone.")

    breaking.store.count_by_state = refuse
    eventually(lambda: client.get("/status").get_json()["status"] == "error")
    status = client.get("/status").get_json()
    assert status["errors"] == [StoreUnavailable.default_public]
    assert status["age_s"] > known["age_s"]
    kept = known.keys() - {"status", "errors", "nemo_components_loaded", "age_s"}
    assert {key: status[key] for key in kept} == {key: known[key] for key in kept}
    del breaking.store.count_by_state
    eventually(lambda: client.get("/status").get_json()["status"] == "ready")


def test_a_fault_in_a_handler_is_json_without_the_inside(settings, jobs, caplog):
    broken = Reporting(jobs)

    def counts():
        raise ZeroDivisionError("/secret/path")

    broken.store.count_by_state = counts
    answer = create_app(settings, broken).test_client().get("/status", headers={"X-Request-ID": "abc"})
    assert answer.status_code == 500
    assert answer.get_json()["code"] == ServiceError.code
    assert "abc" in answer.get_json()["error"]
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_the_first_page_links_to_what_there_is(client):
    links = client.get("/").get_json()["links"]
    assert {client.get(link).status_code for name, link in links.items() if name != "diarize"} == {200}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/status/", 404, "not_found"),
        ("POST", "/status", 405, "method_not_allowed"),
        ("GET", "/diarize", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/static/../../app.py", 404, "not_found"),
    ],
)
def test_what_is_not_there(client, method, path, status, code):
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/json")
    assert answer.get_json()["code"] == code
    assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"]
    assert ("Allow" in answer.headers) == (status == 405)


def test_waiting_callers_may_not_hold_every_thread(settings, jobs):
    with pytest.raises(ConfigurationError, match=r"MAX_WAITING.*HTTP_THREADS"):
        create_app(settings.model_copy(update={"max_waiting": 11}), jobs)


@pytest.mark.slow
def test_the_api_loads_no_models():
    code = (
        "import json, sys, diarist.api.serving, diarist.cli.serve;"
        "print(json.dumps(sorted({'torch', 'onnxruntime', 'av', 'faster_whisper', 'onnx'} & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_the_service_of_a_fleet_is_ready_without_any_worker_and_not_without_its_store(settings, jobs):
    """A fleet that was scaled down to nothing is scaled up by the jobs that the service takes."""
    fleet = settings.model_copy(update={"queue_url": "redis://somewhere"})
    nobody = Reporting(jobs, state="loading", models=(), workers=())
    assert create_app(fleet, nobody).test_client().get("/health/ready").status_code == 200

    def refuse():
        raise StoreUnavailable("The database does not answer.")

    nobody.store.count_by_state = refuse
    answer = create_app(fleet, nobody).test_client().get("/health/ready")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "error")


@pytest.fixture
def on_postgres(postgres_server, settings):
    """A service whose job store is in PostgreSQL, with a job that waits; no worker takes it."""
    fleet = settings.model_copy(update={"database_url": postgres_server.fresh_database()})
    store = open_store(fleet)
    service = JobService(fleet, store, COMMAND)
    store.save_worker_report(
        WorkerReport("w", 1, "ready", (ModelInfo("m", "vad", "MIT"),), (), datetime.now(UTC), "cpu")
    )
    store.create(Job("a-job", JobState.QUEUED, JobSpec(), datetime.now(UTC), ready=True))
    yield fleet, service
    service.stop()
    for thread in threading.enumerate():
        if thread.name in ("status", "metrics"):
            thread.join(20)
    store.close()


POLLERS = 20
BOUND_S = 10.0
"""Far above the patience of what is polled, and far below that of the database."""


def poll(app, path: str):
    """The answers of as many pollers at once."""
    with ThreadPoolExecutor(POLLERS) as pool:
        asked = [pool.submit(lambda: app.test_client().get(path)) for _ in range(POLLERS)]
        return [answer.result(BOUND_S) for answer in asked]


def test_a_database_that_hangs_holds_up_no_poller(on_postgres, postgres_server):
    settings, service = on_postgres
    app = create_app(settings, service)
    client = app.test_client()
    known = client.get("/status").get_json()
    assert (known["status"], known["errors"], known["jobs"]) == ("ready", [], {"waiting": 1, "running": 0})
    assert "diarist_store_up 1.0" in client.get("/metrics").text

    def current_status() -> dict:
        answers = poll(app, "/status")
        assert {answer.status_code for answer in answers} == {200}
        bodies = [answer.get_json() for answer in answers]
        assert all(body["jobs"] == known["jobs"] and body["workers"] == known["workers"] for body in bodies)
        return max(bodies, key=lambda body: body["age_s"])

    with postgres_server.frozen():
        eventually(lambda: current_status()["age_s"] > StatusCache.TIMEOUT_S)
        eventually(lambda: current_status()["status"] == "error", 60)
        body = current_status()
        assert body["age_s"] > known["age_s"]
        assert not body["nemo_components_loaded"]
        assert any("job store" in error for error in body["errors"])
        assert {answer.status_code for answer in poll(app, "/health/ready")} == {503}
        assert {answer.status_code for answer in poll(app, "/health/live")} == {200}
        for answer in poll(app, "/metrics"):
            assert "diarist_store_up 0.0" in answer.text
            assert "diarist_queue_depth" not in answer.text

    eventually(lambda: client.get("/status").get_json()["status"] == "ready")
    again = client.get("/status").get_json()
    assert (again["errors"], again["jobs"]) == ([], known["jobs"])
    assert client.get("/health/ready").status_code == 200
    eventually(lambda: "diarist_store_up 1.0" in client.get("/metrics").text)


def test_a_database_that_hangs_from_the_start_is_told(on_postgres, postgres_server):
    settings, service = on_postgres
    app = create_app(settings, service)
    with postgres_server.frozen():
        answers = [answer.get_json() for answer in poll(app, "/status")]
        assert {(body["status"], body["age_s"]) for body in answers} == {("loading", None)}
        eventually(lambda: poll(app, "/status")[0].get_json()["status"] == "error", 60)
        assert {answer.status_code for answer in poll(app, "/health/ready")} == {503}
    eventually(lambda: app.test_client().get("/status").get_json()["status"] == "ready")
