"""The secrets of the service in the processes that it starts, as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")]

SECRETS = {
    "API_KEY": "key-of-the-service-0123456789",
    "WEBHOOK_SECRET": "webhooks-of-the-service-0123456789",
    "S3_SECRET_KEY": "recordings-of-the-service-0123456789",
}


def test_a_worker_inherits_no_secret_of_the_service(start):
    service = start(**SECRETS)
    service.wait_for("is ready")
    own = Path(f"/proc/{service.process.pid}/environ").read_bytes()
    workers = psutil.Process(service.process.pid).children(recursive=True)
    assert workers
    for value in SECRETS.values():
        assert value.encode() in own
        assert not [each.pid for each in workers if value.encode() in Path(f"/proc/{each.pid}/environ").read_bytes()]
