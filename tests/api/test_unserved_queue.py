"""A job for workers that do not exist ends in the running service, with an error and a webhook."""

from __future__ import annotations

import json

import pytest

from api.conftest import eventually
from api.wire import FORM, call, recording
from support.loopback_site import NETWORK, serving

pytestmark = pytest.mark.slow


def test_it_fails_with_the_reason_and_a_webhook(start):
    with serving() as site:
        service = start(UNSERVED_QUEUE_S=1, SWEEP_EVERY_S=0.1, ALLOWED_NETWORKS=NETWORK, MIN_FREE_MB=0)
        service.wait_for("is ready")
        body = recording("RIFF", queue="gpu", webhook_url=site.url("/hook"))
        job = call(service.address, "POST", "/v1/jobs", body, FORM).json
        path = job["links"]["self"]
        eventually(lambda: call(service.address, "GET", path).json["state"] == "failed")
        ended = call(service.address, "GET", path).json
        assert ended["error"]["code"] == "queue_unserved"
        assert "'gpu'" in ended["error"]["message"]
        assert call(service.address, "GET", f"{path}/result").status == 500
        eventually(lambda: site.asked)
        assert json.loads(site.asked[0].body)["type"] == "job.failed"
