"""One API key cannot take all event streams, or all waiting requests, of the running service."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from api.conftest import eventually
from api.listener import NotificationListener
from api.wire import FORM, call, diarize, recording
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.settings import Settings

pytestmark = pytest.mark.slow

LIMITS = {"MAX_WAITING": 4, "MAX_LISTENERS": 4, "HTTP_THREADS": 16, "MIN_FREE_MB": 0}


@pytest.fixture
def make_keys(tmp_path):
    """Create API keys of the service in ``tmp_path``, and return the headers that send them."""

    def make(*names: str) -> list[dict[str, str]]:
        settings = Settings(_env_file=None, data_dir=tmp_path / "data")  # type: ignore[call-arg]
        settings.data_dir.mkdir(mode=0o700, exist_ok=True)
        with closing(open_database(settings)) as database:
            return [{"X-API-Key": ApiKeyStore(database).create(name)[1]} for name in names]

    return make


def test_event_streams(start, make_keys, tmp_path):
    greedy, modest = make_keys("greedy", "modest")
    service = start(**LIMITS)
    service.wait_for("is ready")
    body = recording(json.dumps({"until": str(tmp_path / "end")}))
    streams = [
        call(service.address, "POST", "/v1/jobs", body, FORM | key).json["links"]["events"] for key in (greedy, modest)
    ]
    with ExitStack() as stack:
        statuses = []
        for key, path in [(greedy, streams[0])] * 4 + [(modest, streams[1])]:
            listener = stack.enter_context(NotificationListener(service.address, path, key))
            statuses.append(listener.response.status)
        assert statuses == [200, 200, 429, 429, 200]
        refused = call(service.address, "GET", streams[0], headers=greedy)
        assert "Your key has its share of the 4 event streams" in refused.json["error"]["message"]
        (tmp_path / "end").touch()


def test_waiting_requests(start, make_keys, tmp_path):
    greedy, modest = make_keys("greedy", "modest")
    service = start(**LIMITS)
    service.wait_for("is ready")
    blocked = recording(json.dumps({"until": str(tmp_path / "end")}))

    def waiting() -> int:
        return sum(call(service.address, "GET", "/status").json["jobs"].values())

    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(diarize, service.address, blocked, greedy) for _ in range(2)]
        eventually(lambda: waiting() == 2)
        refused = diarize(service.address, blocked, greedy)
        assert (refused.status, refused.json["code"]) == (429, "queue_full")
        assert "Your key has its share of the 4 requests" in refused.json["error"]
        answers.append(threads.submit(diarize, service.address, blocked, modest))
        eventually(lambda: waiting() == 3)
        (tmp_path / "end").touch()
        assert [each.result(30).status for each in answers] == [200, 200, 200]


def test_the_only_key_may_take_all(start, make_keys, tmp_path):
    (only,) = make_keys("only")
    service = start(**LIMITS)
    service.wait_for("is ready")
    body = recording(json.dumps({"until": str(tmp_path / "end")}))
    path = call(service.address, "POST", "/v1/jobs", body, FORM | only).json["links"]["events"]
    with ExitStack() as stack:
        listeners = [stack.enter_context(NotificationListener(service.address, path, only)) for _ in range(5)]
        assert [each.response.status for each in listeners] == [200, 200, 200, 200, 429]
        (tmp_path / "end").touch()
