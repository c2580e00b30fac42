"""The storage of an API key in the running service: what is refused, and what makes room."""

from __future__ import annotations

from contextlib import closing

import pytest

from api.conftest import eventually
from api.wire import FORM, call, recording
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.settings import Settings
from support.loopback_site import NETWORK, Answer, serving

pytestmark = pytest.mark.slow

MB = 2**20
UPLOAD = recording(b"x" * (MB * 3 // 4))


@pytest.fixture
def key(tmp_path) -> dict[str, str]:
    """The header with a key whose recordings may take 2 MB."""
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")  # type: ignore[call-arg]
    settings.data_dir.mkdir(mode=0o700)
    with closing(open_database(settings)) as database:
        return {"X-API-Key": ApiKeyStore(database).create("web", storage_limit_mb=2)[1]}


def test_uploads_are_refused_until_a_job_is_deleted(start, key):
    service = start(MIN_FREE_MB=0)
    service.wait_for("is ready")

    def upload(**headers: str):
        return call(service.address, "POST", "/v1/jobs", UPLOAD, FORM | key | headers)

    jobs = [upload(**{"Idempotency-Key": "first"}).json, upload().json]
    refused = upload()
    assert (refused.status, refused.json["error"]["code"]) == (507, "quota_exceeded")
    assert "take 1.5 of 2 MB" in refused.json["error"]["message"]
    again = upload(**{"Idempotency-Key": "first"})
    assert (again.status, again.json["id"]) == (200, jobs[0]["id"])
    assert call(service.address, "DELETE", jobs[1]["links"]["self"], headers=key).status == 204
    assert upload().status == 202
    assert call(service.address, "POST", "/diarize", UPLOAD, FORM | key).status == 200


def test_a_larger_upload_is_refused_without_a_trace(start, key):
    service = start(MIN_FREE_MB=0)
    service.wait_for("is ready")
    assert call(service.address, "POST", "/v1/jobs", recording(b"x" * 4 * MB), FORM | key).status == 507
    assert service.left_behind() == []


def test_the_setting_is_the_limit_of_keys_without_one(start):
    service = start(MIN_FREE_MB=0, API_KEY="key-of-the-settings-0123456789", MAX_STORED_MB_PER_KEY=1)
    service.wait_for("is ready")
    headers = FORM | {"X-API-Key": "key-of-the-settings-0123456789"}
    assert [call(service.address, "POST", "/v1/jobs", UPLOAD, headers).status for _ in range(2)] == [202, 507]


def test_a_download_that_is_too_large_fails_at_once(start, key):
    with serving() as site:
        site.plan = [Answer(body=b"x" * (3 * MB))]
        service = start(MIN_FREE_MB=0, ALLOWED_NETWORKS=NETWORK)
        service.wait_for("is ready")
        headers = key | {"Content-Type": "application/json"}
        body = f'{{"url": "{site.url("/a.wav")}"}}'.encode()
        job = call(service.address, "POST", "/v1/jobs", body, headers).json
        path = job["links"]["self"]
        eventually(lambda: call(service.address, "GET", path, headers=key).json["state"] == "failed")
        ended = call(service.address, "GET", path, headers=key).json
        assert ended["error"]["code"] == "quota_exceeded"
        assert len(site.asked) == 1
        assert not list((service.data / "jobs").rglob("recording*"))
