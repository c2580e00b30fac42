"""Traces as a real collector receives them, across processes, and their overhead when disabled."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from diarist.errors import Cancelled, ConfigurationError, NotAudio
from diarist.observability import logs, tracing
from diarist.settings import Settings
from support.trace_collector import Collector, collecting

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.sdk")
    with collecting() as collector:
        yield collector
        tracing.stop()


@pytest.fixture
def tracing_on(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    monkeypatch.setattr(tracing, "EXPORT_INTERVAL_S", 0.05)
    tracing.configure(Settings(_env_file=None, traces="otlp", otlp_endpoint=collector.url), "test", "here")
    return collector


class TestOff:
    def test_nothing_is_loaded_and_nothing_known(self) -> None:
        program = """
import sys
from diarist.observability import tracing
from diarist.settings import Settings
tracing.configure(Settings(_env_file=None), "api")
with tracing.span("job", size=1) as span:
    span.set_attributes(more=1)
    span.fail("x")
    assert tracing.current_traceparent() is None
tracing.record("late", 0.0, 1.0)
assert not {"opentelemetry", "requests"} & sys.modules.keys()
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    def test_an_incoming_trace_continues_in_the_log_and_in_the_next_process(self) -> None:
        with tracing.span("job", parent=TRACEPARENT), tracing.span("stage"):
            assert tracing.current_traceparent() == TRACEPARENT
            assert logs.trace_id.get() == TRACE
        assert tracing.current_traceparent() is None
        assert logs.trace_id.get() is None

    def test_unknown_fields_of_a_later_version_are_not_passed_on(self) -> None:
        with tracing.span("job", parent=f"cc-{TRACE}-{PARENT}-01-{'more' * 100}"):
            assert tracing.current_traceparent() == TRACEPARENT

    def test_work_that_belongs_to_none_is_not_taken_for_part_of_a_trace(self) -> None:
        with tracing.span("job", parent=TRACEPARENT):
            with tracing.span("another", parent=None):
                assert tracing.current_traceparent() is None
                assert logs.trace_id.get() is None
            assert tracing.current_traceparent() == TRACEPARENT

    def test_exceptions_are_passed_on(self) -> None:
        with pytest.raises(NotAudio), tracing.span("job", parent=TRACEPARENT):
            raise NotAudio
        assert tracing.current_traceparent() is None


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (TRACEPARENT, True),
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        (f"{TRACEPARENT}\n", False),
        ("", False),
        (None, False),
        ("00-" + "a" * 10_000, False),
    ],
)
def test_what_is_a_traceparent(text: str | None, known: bool) -> None:
    assert tracing.trace_id_of(text) == (TRACE if known else None)


def test_spans_arrive_with_what_they_are(tracing_on: Collector) -> None:
    before = time.time()
    with tracing.span("http", kind="server", http_method="POST", http_route="/v1/jobs") as span:
        assert logs.trace_id.get() == tracing.trace_id_of(tracing.current_traceparent())
        with tracing.span("store", size=3):
            pass
        span.set_attributes(http_status=202)
    assert tracing.current_traceparent() is None
    seen = tracing_on.wait_for("http", "store")
    http, store = seen["http"], seen["store"]
    assert http.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
    }
    assert (http.kind, http.parent_id, http.failed) == ("server", "", False)
    assert (store.trace_id, store.parent_id, store.attributes) == (http.trace_id, http.span_id, {"diarist.size": 3})
    assert before <= http.started <= store.started <= store.ended <= http.ended
    named = {name: http.resource[name] for name in ("service.name", "service.instance.id", "diarist.process")}
    assert named == {"service.name": "diarist", "service.instance.id": "here", "diarist.process": "test"}


def test_other_work_in_between_has_its_own_trace(tracing_on: Collector) -> None:
    with tracing.span("long"):
        with tracing.span("let through", parent=None):
            tracing.current_span().fail("not_audio")
        tracing.current_span().set_attributes(size=1)
    tracing.current_span().fail("of no effect")
    seen = tracing_on.wait_for("long", "let through")
    assert seen["long"].trace_id != seen["let through"].trace_id
    assert (seen["long"].failed, seen["long"].attributes) == (False, {"diarist.size": 1})
    assert (seen["let through"].failed, seen["let through"].attributes) == (True, {"error.type": "not_audio"})


def test_a_second_trace_is_another(tracing_on: Collector) -> None:
    for name in ("one", "two"):
        with tracing.span(name):
            pass
    seen = tracing_on.wait_for("one", "two")
    assert seen["one"].trace_id != seen["two"].trace_id


def test_a_trace_goes_on_in_another_process(tracing_on: Collector) -> None:
    with tracing.span("http", parent=TRACEPARENT):
        kept = tracing.current_traceparent()
    program = """
import sys
from diarist.observability import tracing
from diarist.settings import Settings
tracing.configure(Settings(_env_file=None, traces="otlp", otlp_endpoint=sys.argv[1]), "worker", "host-00")
with tracing.span("job", parent=sys.argv[2], kind="consumer"):
    with tracing.span("recognition"):
        pass
    tracing.record("wait", 1000.0, 1001.5)
"""
    subprocess.run([sys.executable, "-c", program, tracing_on.url, str(kept)], check=True, timeout=60)
    seen = tracing_on.wait_for("http", "job", "recognition", "wait")
    assert {span.trace_id for span in seen.values()} == {TRACE}
    assert seen["http"].parent_id == PARENT
    assert seen["job"].parent_id == seen["http"].span_id
    assert seen["recognition"].parent_id == seen["wait"].parent_id == seen["job"].span_id
    assert (seen["wait"].started, seen["wait"].ended) == (1000.0, 1001.5)
    assert seen["job"].resource["service.instance.id"] == "host-00"


def test_a_thread_continues_the_trace_that_is_passed_to_it(tracing_on: Collector) -> None:
    def work(parent: str | None) -> None:
        with tracing.span("webhook", parent=parent, kind="client"):
            pass

    with tracing.span("http"):
        thread = threading.Thread(target=work, args=(tracing.current_traceparent(),))
        thread.start()
        thread.join()
    seen = tracing_on.wait_for("http", "webhook")
    assert seen["webhook"].parent_id == seen["http"].span_id


def test_who_asks_for_no_samples_gets_none(tracing_on: Collector) -> None:
    with tracing.span("unseen", parent=f"00-{TRACE}-{PARENT}-00"):
        assert tracing.current_traceparent().endswith("-00")
        assert logs.trace_id.get() == TRACE
    with tracing.span("seen"):
        pass
    tracing_on.wait_for("seen")
    tracing.stop()
    assert [span.name for span in tracing_on.spans] == ["seen"]


def test_an_error_is_recorded_by_its_kind_without_its_message(tracing_on: Collector) -> None:
    for name, error in (
        ("refused", NotAudio("secret-meeting.wav holds no audio")),
        ("broken", KeyError("secret-meeting.wav")),
        ("stopped", Cancelled("secret-meeting.wav")),
    ):
        with pytest.raises(type(error)), tracing.span(name):
            raise error
    seen = tracing_on.wait_for("refused", "broken", "stopped")
    assert {name: (span.failed, span.attributes) for name, span in seen.items()} == {
        "refused": (True, {"error.type": "not_audio"}),
        "broken": (True, {"error.type": "KeyError"}),
        "stopped": (False, {"diarist.canceled": True}),
    }
    assert not any(b"secret" in body for body in tracing_on.bodies)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log of the service shows; pytest hears OpenTelemetry's own lines as well."""
    return [record.getMessage() for record in caplog.records if record.name == "diarist.observability.tracing"]


def test_a_collector_that_comes_back_is_used_again_and_the_log_says_so_once(
    tracing_on: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tracing_on.status = 400
    for number in range(3):
        with tracing.span("lost"):
            pass
        while len(tracing_on.bodies) <= number:
            with tracing.span("lost"):
                pass
            time.sleep(0.01)
    tracing_on.status = 200
    with tracing.span("found"):
        pass
    tracing_on.wait_for("found")
    tracing.stop()
    warned, again = said(caplog)
    assert "400" in warned
    assert "OTLP_ENDPOINT" in warned
    assert "again" in again
    assert tracing_on.url in warned


def test_nobody_waits_for_a_collector_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("opentelemetry.sdk")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        tracing.configure(
            Settings(_env_file=None, traces="otlp", otlp_endpoint=f"http://127.0.0.1:{free.getsockname()[1]}"), "test"
        )
        for _ in range(20_000):  # ten times what is kept to be sent
            with tracing.span("lost"):
                pass
        tracing.stop()
    (warned,) = said(caplog)
    assert "refused" in warned
    assert logging.getLogger("opentelemetry").propagate
    assert [thread.name for thread in threading.enumerate() if "Otel" in thread.name] == []


def test_nobody_waits_for_a_collector_that_says_nothing(tracing_on: Collector) -> None:
    tracing_on.silent = True
    for _ in range(600):  # more than one batch
        with tracing.span("unheard"):
            pass
    tracing.stop()
    assert tracing_on.silent, "it still says nothing"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"diarist\[tracing\]"):
        tracing.configure(Settings(_env_file=None, traces="otlp"), "api")


@pytest.mark.parametrize("endpoint", ["", "collector:4318", "ftp://collector", "http://", "http:// x"])
def test_an_endpoint_that_is_none_is_named(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="OTLP_ENDPOINT"):
        tracing.configure(Settings(_env_file=None, traces="otlp").model_copy(update={"otlp_endpoint": endpoint}), "api")


def test_the_whole_address_may_be_given(collector: Collector) -> None:
    tracing.configure(Settings(_env_file=None, traces="otlp", otlp_endpoint=f"{collector.url}/v1/traces"), "test")
    with tracing.span("job"):
        pass
    tracing.stop()
    assert [span.name for span in collector.spans] == ["job"]
