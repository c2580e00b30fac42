"""Metrics: the result of a scrape, parsed by the parser of Prometheus, and its cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from sqlalchemy import insert, select, update

from api.wire import FORM, recording
from diarist.api import metrics
from diarist.errors import StoreUnavailable
from diarist.jobs.db import metrics_snapshot, metrics_storage, schema
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore, open_store
from diarist.jobs.db.rows import values_of
from diarist.jobs.db.schema import jobs
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, WorkerReport
from diarist.observability import tracing
from diarist.settings import Settings
from support.ratios import ratio
from support.servers import PostgresServer
from support.trace_collector import Collector, collecting

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PAGE = ROOT / "docs" / "observability.md"
PLACES = [PAGE, *(path for pattern in ("*.json", "*.yaml", "*.tpl") for path in (ROOT / "deploy").rglob(pattern))]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqlJobStore]:
    store = SqlJobStore(Database(open_sqlite(tmp_path / "jobs.sqlite3"), clock))
    yield store
    store.close()


def make_app(read: Callable[[], metrics_snapshot.MetricsSnapshot]) -> APIFlask:
    app = APIFlask(__name__, docs_path=None)

    @app.get("/v1/jobs/<job_id>")
    def get(job_id: str) -> str:
        return tracing.current_traceparent() or "untraced"

    @app.post("/v1/jobs")
    def post() -> tuple[str, int]:
        return tracing.current_traceparent() or "untraced", 202

    @app.post("/fail")
    def fail() -> str:
        raise KeyError("secret-name.wav")

    @app.get("/stream")
    def stream() -> Iterator[str]:
        yield from ("one", "two")

    metrics.register(app, read, "embedded")
    return app


@pytest.fixture
def client(store: SqlJobStore) -> FlaskClient:
    return make_app(lambda: metrics_snapshot.read(store.database)).test_client()


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: FlaskClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return samples_of(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def job(number: int, **spec: object) -> Job:
    return Job(f"job-{number}", JobState.QUEUED, JobSpec(kind=JobKind.JOB, **spec), NOW)


class TestStore:
    def test_a_new_service_shows_zeros_and_not_nothing(self, client: FlaskClient) -> None:
        seen = scrape(client)
        assert value(seen, "diarist_store_up") == 1
        for state in JobState:
            assert value(seen, "diarist_jobs", state=state.value) == 0
        for queue in ("any", "cpu", "gpu", "embedded", "nemo"):
            assert value(seen, "diarist_queue_depth", queue=queue) == 0
            assert value(seen, "diarist_queue_oldest_seconds", queue=queue) == 0
        for state in ("succeeded", "failed", "canceled"):
            assert value(seen, "diarist_jobs_ended_total", state=state) == 0
        for outcome in ("delivered", "retried", "given_up"):
            assert value(seen, "diarist_webhook_deliveries_total", outcome=outcome) == 0
        for state in ("ready", "loading", "error"):
            assert value(seen, "diarist_workers", state=state) == 0
        assert value(seen, "diarist_worker_restarts_total") == 0
        for name in ("real_time_factor", "job_wait_seconds", "model_load_seconds"):
            assert value(seen, f"diarist_{name}_count") == 0
            assert value(seen, f"diarist_{name}_bucket", le="+Inf") == 0

    def test_jobs_and_queues(self, client: FlaskClient, store: SqlJobStore, clock: Clock) -> None:
        store.create(job(1))
        clock.now += timedelta(seconds=40)
        store.create(replace(job(2, queue="gpu"), created_at=clock.now))
        store.create(replace(job(3, queue="gpu"), created_at=clock.now))
        store.create(replace(job(4, source_url="https://example.org/a.wav"), ready=False))  # still being fetched
        store.create(job(5, queue="elsewhere"))
        assert store.claim("worker", 30, 3, ("elsewhere",)).id == "job-5"
        store.fail("job-5", "worker", JobError("job_failed", "words"))
        clock.now += timedelta(seconds=2)
        seen = scrape(client)
        assert value(seen, "diarist_jobs", state="queued") == 4
        assert value(seen, "diarist_jobs", state="failed") == 1
        assert value(seen, "diarist_queue_depth", queue="any") == 1
        assert value(seen, "diarist_queue_depth", queue="gpu") == 2
        assert value(seen, "diarist_queue_oldest_seconds", queue="any") == 42
        assert value(seen, "diarist_queue_oldest_seconds", queue="gpu") == 2
        assert value(seen, "diarist_jobs_ended_total", state="failed") == 1
        assert value(seen, "diarist_job_wait_seconds_count") == 1
        assert value(seen, "diarist_job_wait_seconds_sum") == 40
        assert value(seen, "diarist_job_wait_seconds_bucket", le="30.0") == 0
        assert value(seen, "diarist_job_wait_seconds_bucket", le="100.0") == 1

    def test_a_job_that_waits_for_its_next_try_is_no_reason_for_more_workers(
        self, client: FlaskClient, store: SqlJobStore
    ) -> None:
        store.create(job(1))
        store.claim("worker", 30, 3)
        store.retry("job-1", "worker", JobError("job_failed", "words"), 3, 60)
        seen = scrape(client)
        assert value(seen, "diarist_jobs", state="queued") == 1
        assert value(seen, "diarist_queue_depth", queue="any") == 0

    def test_workers(self, store: SqlJobStore, clock: Clock) -> None:
        for name, state, later_s in (("d", "ready", 80), ("b", "ready", 10), ("a", "ready", 0), ("c", "error", 0)):
            store.save_worker_report(WorkerReport(name, 1, state, (), (), NOW))
            clock.now += timedelta(seconds=later_s)
        all_ = make_app(lambda: metrics_snapshot.read(store.database)).test_client()
        fresh = make_app(lambda: metrics_snapshot.read(store.database, 60)).test_client()
        assert value(scrape(all_), "diarist_workers", state="ready") == 3
        seen = scrape(fresh)
        assert value(seen, "diarist_workers", state="ready") == 2
        assert value(seen, "diarist_workers", state="error") == 1

    def test_samples(self, client: FlaskClient, store: SqlJobStore) -> None:
        with store.database.writing() as connection:
            for seconds in (0.2, 5.0, 20_000.0):
                metrics_storage.observe(connection, metrics_storage.STAGE_SECONDS, seconds, stage="recognition")
            metrics_storage.observe(connection, metrics_storage.REAL_TIME_FACTOR, 0.25)
            metrics_storage.observe(connection, metrics_storage.MODEL_LOAD_SECONDS, 2.5)
            for outcome in ("delivered", "delivered", "given_up"):
                metrics_storage.increment(connection, metrics_storage.WEBHOOK_DELIVERIES, outcome=outcome)
            metrics_storage.increment(connection, metrics_storage.WORKER_RESTARTS)
        seen = scrape(client)
        assert value(seen, "diarist_stage_seconds_bucket", stage="recognition", le="0.1") == 0
        assert value(seen, "diarist_stage_seconds_bucket", stage="recognition", le="0.3") == 1
        assert value(seen, "diarist_stage_seconds_bucket", stage="recognition", le="10000.0") == 2
        assert value(seen, "diarist_stage_seconds_bucket", stage="recognition", le="+Inf") == 3
        assert value(seen, "diarist_stage_seconds_sum", stage="recognition") == pytest.approx(20_005.2)
        assert value(seen, "diarist_real_time_factor_bucket", le="0.3") == 1
        assert value(seen, "diarist_model_load_seconds_sum") == 2.5
        assert value(seen, "diarist_webhook_deliveries_total", outcome="delivered") == 2
        assert value(seen, "diarist_webhook_deliveries_total", outcome="given_up") == 1
        assert value(seen, "diarist_worker_restarts_total") == 1

    def test_two_processes_say_the_same(self, store: SqlJobStore) -> None:
        store.create(job(1))
        one, two = (scrape(make_app(lambda: metrics_snapshot.read(store.database)).test_client()) for _ in range(2))
        stored = {key for key in one if not re.match("process_|diarist_http_", key[0])}
        assert len(stored) > 60
        assert {key: one[key] for key in stored} == {key: two[key] for key in stored}

    def test_a_store_that_cannot_be_read_costs_only_what_it_knows(self) -> None:
        asked = []

        def read() -> metrics_snapshot.MetricsSnapshot:
            asked.append(1)
            raise StoreUnavailable("The job store cannot be reached.")

        client = make_app(read).test_client()
        for _ in range(3):
            seen = scrape(client)
        assert value(seen, "diarist_store_up") == 0
        assert value(seen, "process_resident_memory_bytes") > 10e6
        assert value(seen, "diarist_http_requests_total", method="GET", path="/metrics", status="200") == 2
        assert not [name for name, _ in seen if name.startswith(("diarist_jobs", "diarist_queue", "diarist_workers"))]
        assert len(asked) == 1

    def test_the_store_is_read_once_a_second(
        self, client: FlaskClient, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scrape(client)
        store.create(job(1))
        assert value(scrape(client), "diarist_jobs", state="queued") == 0
        monkeypatch.setattr(metrics, "MAX_AGE_S", 0.0)
        assert value(scrape(client), "diarist_jobs", state="queued") == 1

    @pytest.mark.timing
    def test_ten_thousand_jobs_cost_less_than_to_read_them(
        self, client: FlaskClient, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metrics, "MAX_AGE_S", 0.0)
        with store.database.writing() as connection:
            states = [JobState.SUCCEEDED] * 9 + [JobState.QUEUED]
            rows = [values_of(replace(job(number), state=states[number % 10])) for number in range(10_000)]
            connection.execute(insert(jobs), rows)
        assert value(scrape(client), "diarist_queue_depth", queue="any") == 1_000

        def read_them() -> None:
            with store.database.reading() as connection:
                assert len(connection.execute(select(jobs)).all()) == 10_000

        assert ratio(lambda: scrape(client), read_them) < 0.5


def test_a_fleets_store_tells_the_same(postgres_server: PostgresServer) -> None:
    store = open_store(Settings(_env_file=None, database_url=postgres_server.fresh_database()))
    try:
        store.create(replace(job(1, queue="gpu"), created_at=datetime.now(UTC) - timedelta(seconds=40)))
        store.create(job(2))
        store.claim("worker", 30, 3, ("any",))
        store.save_worker_report(WorkerReport("worker", 1, "ready", (), (), datetime.now(UTC)))
        store.save_worker_report(WorkerReport("gone", 1, "ready", (), (), datetime.now(UTC)))
        with store.database.writing() as connection:
            long_ago = store.database.now(connection) - timedelta(seconds=90)
            workers = schema.workers
            connection.execute(update(workers).where(workers.c.worker == "gone").values(reported_at=long_ago))
        seen = scrape(make_app(lambda: metrics_snapshot.read(store.database, 60)).test_client())
    finally:
        store.close()
    assert value(seen, "diarist_jobs", state="queued") == value(seen, "diarist_jobs", state="running") == 1
    assert value(seen, "diarist_queue_depth", queue="gpu") == 1
    assert value(seen, "diarist_queue_depth", queue="any") == 0
    assert 40 <= value(seen, "diarist_queue_oldest_seconds", queue="gpu") < 100
    assert value(seen, "diarist_workers", state="ready") == 1
    assert value(seen, "diarist_job_wait_seconds_count") == 1


class TestService:
    """The whole application, with the real jobs and a worker process."""

    def test_what_a_worker_did_is_seen_by_the_service(self, app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "MAX_AGE_S", 0.0)
        before = scrape(app.test_client())
        assert app.test_client().post("/diarize", data=recording(), headers=FORM).status_code == 200
        answer = app.test_client().get("/metrics")
        seen = samples_of(answer.text)
        for name, labels in (
            ("diarist_jobs_ended_total", {"state": "succeeded"}),
            ("diarist_job_wait_seconds_count", {}),
            ("diarist_real_time_factor_count", {}),
            ("diarist_http_requests_total", {"method": "POST", "path": "/diarize", "status": "200"}),
        ):
            key = name, tuple(sorted(labels.items()))
            assert seen[key] == before.get(key, 0) + 1, name
        assert value(seen, "diarist_stage_seconds_count", stage="recognition") >= 1
        assert value(seen, "diarist_model_load_seconds_count") >= 1
        assert value(seen, "diarist_workers", state="ready") == 1
        assert "secret" not in answer.text
        assert "meeting.wav" not in answer.text

    def test_no_id_of_a_request_is_missing(self, app: APIFlask) -> None:
        answer = app.test_client().get("/metrics", headers={"X-Request-ID": "mine"})
        assert answer.headers["X-Request-ID"] == "mine"


class TestRequests:
    def test_a_path_is_that_of_its_route(self, client: FlaskClient) -> None:
        for name in ("one", "two"):
            client.get(f"/v1/jobs/{name}-secret")
        client.get("/v1/jobs/one-secret", headers={"Host": "bad host\x00"})
        client.head("/v1/jobs/one-secret")
        client.post("/v1/jobs")
        client.delete("/v1/jobs/one-secret")
        client.get("/no-such-secret")
        client.open("/v1/jobs/one-secret", method="SECRET")
        client.get("/stream").close()
        answer = client.get("/metrics")
        seen = samples_of(answer.text)
        counted = {
            tuple(dict(labels).values()): many
            for (name, labels), many in seen.items()
            if name.endswith("requests_total")
        }
        assert counted.pop(("GET", "/v1/jobs/<job_id>", "200")) in (2, 3)  # Werkzeug may refuse the third itself
        counted.pop(("GET", "/v1/jobs/<job_id>", "400"), None)
        assert counted == {
            ("HEAD", "/v1/jobs/<job_id>", "200"): 1,
            ("POST", "/v1/jobs", "202"): 1,
            ("DELETE", "other", "405"): 1,
            ("GET", "other", "404"): 1,
            ("other", "other", "405"): 1,
            ("GET", "/stream", "200"): 1,
        }
        assert "secret" not in answer.text.lower()
        assert value(seen, "diarist_http_request_seconds_count", method="POST", path="/v1/jobs") == 1

    def test_a_failure_is_counted(self, client: FlaskClient) -> None:
        client.application.config["PROPAGATE_EXCEPTIONS"] = False
        assert client.post("/fail").status_code == 500
        answer = client.get("/metrics").text
        assert value(samples_of(answer), "diarist_http_requests_total", method="POST", path="/fail", status="500") == 1
        assert "secret-name" not in answer

    def test_applications_do_not_share_what_they_count(self, store: SqlJobStore) -> None:
        one, two = (make_app(lambda: metrics_snapshot.read(store.database)).test_client() for _ in range(2))
        one.post("/v1/jobs")
        assert "diarist_http_requests_total{" not in two.get("/metrics").text


class TestForm:
    def test_build_and_process(self, client: FlaskClient) -> None:
        seen = scrape(client)
        (build,) = (dict(labels) for name, labels in seen if name == "diarist_build_info")
        assert build["engine"] == "embedded"
        for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"):
            assert value(seen, f"process_{name}") > 0

    @pytest.mark.parametrize(
        "accept",
        [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ],
    )
    def test_openmetrics_where_it_is_asked_for(self, client: FlaskClient, accept: str) -> None:
        client.post("/v1/jobs")
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.content_type.startswith("application/openmetrics-text; version=1.0.0")
        families = {family.name: family for family in parse_openmetrics(answer.text)}
        assert families["diarist_jobs_ended"].type == "counter"
        assert families["diarist_stage_seconds"].type == "histogram"
        assert openmetrics is not None

    @pytest.mark.parametrize(
        "accept", ["", "*/*", "text/html", "application/openmetrics-text; version=x", "text/plain; version=..;", ",;=,"]
    )
    def test_text_for_all_others(self, client: FlaskClient, accept: str) -> None:
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200
        assert list(parser.text_string_to_metric_families(answer.text))

    def test_every_metric_says_what_it_is(self, client: FlaskClient) -> None:
        for family in parser.text_string_to_metric_families(client.get("/metrics").text):
            assert family.documentation, family.name
            assert family.type != "unknown", family.name


class TestNames:
    """What dashboards, alerts and the documentation name is there."""

    @pytest.fixture
    def exported(self, client: FlaskClient, store: SqlJobStore) -> dict[str, set[str]]:
        """Labels by name, of a service in which each thing happened once."""
        with store.database.writing() as connection:
            metrics_storage.observe(connection, metrics_storage.STAGE_SECONDS, 1.0, stage="decode")
        client.post("/v1/jobs")
        found: dict[str, set[str]] = {}
        for name, labels in scrape(client):
            found.setdefault(name, set()).update(dict(labels))
        return found

    @pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
    def test_what_deployments_ask_for(self, path: Path, exported: dict[str, set[str]]) -> None:
        text = path.read_text("utf-8")
        text = json.dumps(json.loads(text)).replace('\\"', '"') if path.suffix == ".json" else text
        for name, labels in re.findall(r"\b(diarist_[a-z_]+)(?:\{([^}]*)\})?", text):
            known = exported.get(name, exported.get(f"{name}_bucket"))
            assert known is not None, f"{path.name} asks for {name}"
            asked = set(re.findall(r"(\w+)\s*[=!]~?", labels)) - {"job", "instance", "namespace"}
            assert asked <= known, f"{path.name} asks {name} for {asked}"

    @pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
    def test_what_every_process_reports_alike_is_not_added_up(self, path: Path) -> None:
        """But for quantiles, which any multiple of the buckets gives alike."""
        text = re.sub(r"histogram_quantile\([^,]+, sum", "", path.read_text("utf-8"))
        for inner in re.findall(r"\bsum(?: by \([^)]*\))? ?\((?:rate|increase)\((diarist_[a-z_]+)", text):
            assert inner.startswith("diarist_http_"), f"{path.name} adds {inner} up over processes"

    def test_the_dashboard_asks_for_something(self) -> None:
        assert "diarist_queue_depth" in (ROOT / "deploy" / "grafana" / "diarist.json").read_text("utf-8")

    def test_the_documentation_names_all_and_no_other(self, exported: dict[str, set[str]]) -> None:
        text = PAGE.read_text("utf-8")
        named = set(re.findall(r"\bdiarist_[a-z_]+", text))
        ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported if name.startswith("diarist_")}
        ours = {name for name in ours if not name.endswith("_created")}
        assert ours <= named
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= ours


class TestTraces:
    TRACE = "0af7651916cd43dd8448eb211c80319c"
    PARENT = f"00-{TRACE}-b7ad6b7169203331-01"

    @pytest.fixture
    def collector(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
        pytest.importorskip("opentelemetry.sdk")
        monkeypatch.setattr(tracing, "EXPORT_INTERVAL_S", 0.05)
        with collecting() as collector:
            tracing.configure(Settings(_env_file=None, traces="otlp", otlp_endpoint=collector.url), "api")
            yield collector
            tracing.stop()

    def test_a_request_that_changes_something_is_a_span(self, client: FlaskClient, collector: Collector) -> None:
        handed_on = client.post("/v1/jobs").text
        span = collector.wait_for("POST /v1/jobs")["POST /v1/jobs"]
        assert handed_on.startswith(f"00-{span.trace_id}-{span.span_id}-")
        assert (span.kind, span.parent_id, span.failed) == ("server", "", False)
        assert span.attributes == {
            "http.request.method": "POST", "http.route": "/v1/jobs", "http.response.status_code": 202,
        }  # fmt: skip

    def test_a_trace_that_comes_is_gone_on_with(self, client: FlaskClient, collector: Collector) -> None:
        client.get("/v1/jobs/secret-id", headers={"traceparent": self.PARENT})
        span = collector.wait_for("GET /v1/jobs/<job_id>")["GET /v1/jobs/<job_id>"]
        assert (span.trace_id, span.parent_id) == (self.TRACE, "b7ad6b7169203331")
        assert not any(b"secret" in body for body in collector.bodies)

    @pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01"])
    def test_polling_is_not_traced(self, client: FlaskClient, collector: Collector, traceparent: str | None) -> None:
        headers = {} if traceparent is None else {"traceparent": traceparent}
        assert client.get("/v1/jobs/1", headers=headers).text == "untraced"

    def test_a_failure_is_shown(self, client: FlaskClient, collector: Collector) -> None:
        client.application.config["PROPAGATE_EXCEPTIONS"] = False
        client.post("/fail")
        span = collector.wait_for("POST /fail")["POST /fail"]
        assert span.failed
        assert span.attributes["error.type"] == "500"
        assert not any(b"secret" in body for body in collector.bodies)


def test_without_traces_a_trace_is_still_handed_on(client: FlaskClient) -> None:
    assert client.post("/v1/jobs").text == "untraced"
    assert client.post("/v1/jobs", headers={"traceparent": TestTraces.PARENT}).text == TestTraces.PARENT
