"""One trace from the request over the job to the worker's stages, of real processes, as a real receiver sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api.wire import FORM, call, diarize, recording
from diarist.observability import tracing
from diarist.pipeline.progress import ProgressMeter
from diarist.settings import Settings
from support.trace_collector import Collector, collecting

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.sdk")
    with collecting() as collector:
        yield collector
        tracing.stop()


def test_a_trace_goes_from_the_request_to_the_worker(start, collector):
    service = start(TRACES="otlp", OTLP_ENDPOINT=collector.url, LOG_FORMAT="json")
    service.wait_for("is ready")
    answer = call(service.address, "POST", "/v1/jobs", recording('{"words": ["secret"]}'), FORM | PARENT)
    assert answer.status == 202
    seen = collector.wait_for("POST /v1/jobs", "job", "wait")
    request, job, wait = seen["POST /v1/jobs"], seen["job"], seen["wait"]
    assert {span.trace_id for span in seen.values()} == {TRACE}
    assert request.parent_id == "b7ad6b7169203331"
    assert job.parent_id == request.span_id
    assert wait.parent_id == job.span_id
    assert (request.resource["diarist.process"], job.resource["diarist.process"]) == ("api", "worker")
    assert job.attributes == {"diarist.job_id": answer.json["id"], "diarist.queue": "any", "diarist.attempt": 1}
    assert not any(b"secret" in sent or b"meeting" in sent for sent in collector.bodies)
    assert service.stop() == 0
    lines = [line for text in service.log if (line := json.loads(text)).get("trace_id") == TRACE]
    assert {line["logger"] for line in lines} >= {"diarist.access", "diarist.jobs.workers.job_runner"}
    (finished,) = (line for line in lines if line["message"].startswith("Job finished"))
    assert finished["worker"] == job.resource["service.instance.id"]
    assert finished["job_id"] == answer.json["id"]
    assert finished["request_id"]


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Address of a server that has a recording and takes webhooks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"RIFF")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetching_and_telling_belong_to_the_trace(start, collector, elsewhere):
    service = start(TRACES="otlp", OTLP_ENDPOINT=collector.url, LOG_FORMAT="json", ALLOWED_NETWORKS="127.0.0.0/8")
    service.wait_for("is ready")
    order = {"url": f"{elsewhere}/secret.wav", "webhook_url": f"{elsewhere}/secret"}
    headers = {"Content-Type": "application/json", "X-Request-ID": "the-request"}
    answer = call(service.address, "POST", "/v1/jobs", json.dumps(order).encode(), headers)
    assert answer.status == 202
    seen = collector.wait_for("POST /v1/jobs", "download", "job", "webhook")
    request = seen.pop("POST /v1/jobs")
    assert {span.parent_id for span in seen.values()} == {request.span_id}
    assert {span.trace_id for span in seen.values()} == {request.trace_id}
    assert not any(span.failed for span in seen.values())
    assert seen["webhook"].attributes["http.response.status_code"] == 204
    assert not any(b"secret" in sent for sent in collector.bodies)
    assert service.stop() == 0
    for words in ("Recording downloaded", "Job finished", "Webhook accepted"):
        (line,) = (line for text in service.log if (line := json.loads(text))["message"].startswith(words))
        ids = {"request_id": "the-request", "job_id": answer.json["id"], "trace_id": request.trace_id}
        assert ids.items() <= line.items()


def test_a_job_that_fails_says_of_what_kind(start, collector):
    service = start(TRACES="otlp", OTLP_ENDPOINT=collector.url)
    service.wait_for("is ready")
    script = '{"fail": "CorruptAudio", "message": "secret words"}'
    assert diarize(service.address, recording(script)).status == 422
    seen = collector.wait_for("POST /diarize", "job")
    assert (seen["job"].failed, seen["job"].attributes["error.type"]) == (True, "corrupt_audio")
    assert (seen["POST /diarize"].failed, seen["POST /diarize"].attributes["http.response.status_code"]) == (False, 422)
    assert seen["job"].parent_id == seen["POST /diarize"].span_id
    assert not any(b"secret" in sent for sent in collector.bodies)


def test_stages_are_spans(collector, monkeypatch):
    monkeypatch.setattr(tracing, "EXPORT_INTERVAL_S", 0.05)
    tracing.configure(Settings(_env_file=None, traces="otlp", otlp_endpoint=collector.url), "worker")
    meter = ProgressMeter(lambda *_: None)
    with tracing.span("job"):
        with meter.timed("decode"):
            pass
        assert list(meter.timed_items("recognition", iter("ab"))) == ["a", "b"]
    seen = collector.wait_for("job", "decode", "recognition")
    assert seen["decode"].parent_id == seen["recognition"].parent_id == seen["job"].span_id
