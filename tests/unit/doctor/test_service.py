"""Checks of a running service, of a missing one, and of the reports of workers."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import insert

from diarist import __version__
from diarist.doctor import service
from diarist.jobs.db import schema
from diarist.jobs.db.database import open_database
from diarist.settings import Settings

WELL = {"status": "ready", "errors": [], "nemo_components_loaded": True, "version": __version__}


@pytest.fixture
def make(tmp_path):
    def settings(**changes: object) -> Settings:
        return Settings(_env_file=None, **{"data_dir": tmp_path / "data"} | changes)

    return settings


@contextmanager
def serving(answer: bytes, status: int = 200):
    """The port of a server of which every answer is this one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", f"Diarist {__version__}"),
        ({"status": "loading"}, "warning", "wait until the models are loaded"),
        ({"status": "error", "errors": ["Do this."]}, "error", "Do this."),
        ({"version": "0.0.1"}, "warning", "Restart the service"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_the_state_of_a_service_is_reported(make, changes, level, words, host):
    with serving(json.dumps(WELL | changes).encode()) as port:
        found = service.check_service(make(flask_port=port, flask_host=host))
    assert found.level == level
    assert words in found.message


@pytest.mark.parametrize(
    ("answer", "status"), [(b"{}", 200), (b"[]", 200), (b"hello", 200), (json.dumps(WELL).encode(), 404)]
)
def test_another_server_on_the_port_is_reported(make, answer, status):
    with serving(answer, status) as port:
        found = service.check_service(make(flask_port=port))
    assert found.level == "warning"
    assert "does not respond like Diarist" in found.message


def test_no_service_is_a_warning(make):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = service.check_service(make(flask_port=port))
    assert found.level == "warning"
    assert "diarist serve" in found.message
    assert service.check_service(make(flask_port=0)).level == "ok"


def test_a_service_that_does_not_respond_is_not_waited_for(make, monkeypatch):
    monkeypatch.setattr(service, "NETWORK_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = service.check_service(make(flask_port=listener.getsockname()[1]))
    assert (found.level, "timed out" in found.message) == ("warning", True)


def report(database, name: str, ago_s: float, state: str = "ready", errors: str = "[]") -> None:
    with database.writing() as connection:
        connection.execute(
            insert(schema.workers).values(
                worker=name, pid=1, state=state, models="[]", errors=errors, device="cpu", queues="[]",
                reported_at=datetime.now(UTC) - timedelta(seconds=ago_s),
            )
        )  # fmt: skip


def test_workers(make):
    assert service.check_workers(make()).level == "ok"
    assert not make().data_dir.exists()
    with closing(open_database(make())) as database:
        none = service.check_workers(make(queue_url="redis://x"))
        assert (none.level, "diarist worker" in none.message) == ("warning", True)
        report(database, "w1", 1)
        report(database, "w2", 1, "loading")
        assert service.check_workers(make()) == service.ok("1 ready, 1 loading")
        report(database, "w3", 120)
        silent = service.check_workers(make())
        assert (silent.level, "w3" in silent.message, "w1" in silent.message) == ("warning", True, False)
        report(database, "w4", 1, "error", '["The engine is gone. Do this."]')
        found = service.check_workers(make())
        assert found.level == "error"
        assert "Do this." in found.message


def test_what_a_ready_worker_reports_is_a_warning(make):
    with closing(open_database(make())) as database:
        report(database, "w1", 1, "ready", '["This machine has a GPU, but Whisper runs on the CPU."]')
        assert service.check_workers(make()) == service.warning(
            "1 ready: This machine has a GPU, but Whisper runs on the CPU."
        )
        report(database, "w2", 1, "error", '["The engine is gone."]')
        assert service.check_workers(make()) == service.error("1 ready, 1 error: The engine is gone.")


def test_a_worker_with_a_running_job_is_not_unresponsive(make):
    with closing(open_database(make())) as database:
        report(database, "w1", 3_600)
        with database.writing() as connection:
            connection.execute(
                insert(schema.chunks).values(
                    job_id=_job(connection), digest="d", number=1, engine="e", queue="any", channel=0, stage="s",
                    first_sample=0, stop_sample=1, channel_samples=1, work=b"", done=False, worker_crashes=0,
                    worker="w1", lease_until=datetime.now(UTC) + timedelta(seconds=30),
                )
            )  # fmt: skip
        assert service.check_workers(make()).level == "ok"


def _job(connection) -> str:
    columns = {
        column.name: {str: "", int: 0, float: 0.0, bool: False}.get(column.type.python_type, datetime.now(UTC))
        for column in schema.jobs.columns
        if not column.nullable and column.name not in ("number", "state", "kind", "created_at")
    }
    created = {"id": "j", "state": "queued", "kind": "job", "created_at": datetime.now(UTC)}
    connection.execute(insert(schema.jobs).values(**columns | created))
    return "j"


def test_traces(make):
    assert service.check_traces(make()).level == "ok"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert service.check_traces(make(traces="otlp", otlp_endpoint=endpoint)).level == "ok"
    found = service.check_traces(make(traces="otlp", otlp_endpoint=endpoint))
    assert found.level == "error"
    assert "OTLP_ENDPOINT" in found.message
    assert service.check_traces(make(traces="otlp", otlp_endpoint="collector")).level == "error"
