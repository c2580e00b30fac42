"""The number of database connections that the processes of a service may open."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from api.wire import call, diarize
from diarist.jobs.db import postgres

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("pool_counting_entry.py")), "api")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_each_process_has_one_pool(start, tmp_path, database, request):
    url = "" if database == "sqlite" else request.getfixturevalue("postgres_server").fresh_database()
    log = tmp_path / "pools"
    service = start(command=COMMAND, DATABASE_URL=url, POOL_LOG=log, API_KEY="a-key-for-the-tests-only", MIN_FREE_MB=0)
    service.wait_for("is ready")
    key = {"X-API-Key": "a-key-for-the-tests-only"}
    assert diarize(service.address, headers=key).status == 200
    assert diarize(service.address, headers={"X-API-Key": "a wrong key, which is looked up"}).status == 401
    for path in ("/status", "/metrics", "/v1/jobs"):
        assert call(service.address, "GET", path, headers=key).status == 200
    assert service.stop() == 0
    pools = Counter(log.read_text(encoding="ascii").splitlines())
    assert sorted(line.split()[0] for line in pools) == ["api", "worker"]
    assert set(pools.values()) == {1}


def test_the_documented_number_of_connections_is_the_size_of_a_pool():
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    assert f"Each process takes at most {postgres.POOL + postgres.POOL_MAX_OVERFLOW} connections" in text
