"""The servers that tests start: each answers, loses its data or not as asked, and leaves nothing however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from support import servers

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[3]


def until(condition, seconds: float = 20.0) -> None:
    turn, deadline = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        turn.wait(0.05)


def test_redis_keeps_or_loses_its_data_over_a_restart(redis_server):
    url = redis_server.fresh_url()
    with redis.Redis.from_url(url) as client:
        client.set("said", "something")
        redis_server.restart()
        assert client.get("said") == b"something"
        redis_server.restart(lose_data=True)
        assert client.get("said") is None


def test_databases_of_redis_are_empty_and_apart(redis_server):
    first, second = redis_server.fresh_url(), redis_server.fresh_url()
    assert first != second
    with redis.Redis.from_url(first) as client, redis.Redis.from_url(second) as other:
        client.set("said", "something")
        assert other.keys() == []


def test_databases_of_postgres_are_empty_and_outlive_a_restart(postgres_server):
    first, second = postgres_server.fresh_database(), postgres_server.fresh_database()
    assert first != second
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE said (what text)")
    postgres_server.restart()
    for url, count in ((first, 1), (second, 0)):
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'said'").fetchone()
        assert found == (count,)


def test_buckets_are_empty_and_apart(s3_server):
    first, second = s3_server.fresh_bucket(), s3_server.fresh_bucket()
    s3_server.client.put_object(Bucket=first, Key="said", Body=b"something")
    assert "Contents" not in s3_server.client.list_objects_v2(Bucket=second)


@pytest.mark.parametrize("kind", ["RedisServer", "PostgresServer", "S3Server"])
def test_a_server_ends_with_the_process_that_started_it_however_that_ends(kind, request):
    request.getfixturevalue(
        {"RedisServer": "redis_server", "PostgresServer": "postgres_server", "S3Server": "s3_server"}[kind]
    )
    program = f"from support import servers; s = servers.{kind}(); print(s.pid, s.folder, flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
    )  # fmt: skip
    with owner:
        pid, folder = owner.stdout.readline().split()
        process = psutil.Process(int(pid))
        family = [process, *process.children(recursive=True)]
        owner.kill()
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))
    assert Path(folder).is_dir()
    for path in (Path(folder), Path(folder) / servers.LOCK):
        os.utime(path, (0, 0))
    with contextlib.closing(getattr(servers, kind)()) as next_one:
        assert not Path(folder).exists()
        assert next_one.folder.is_dir()
    assert not next_one.folder.exists()


def test_the_log_of_a_server_that_does_not_start_is_shown(redis_server, monkeypatch, tmp_path):
    class Broken(servers.RedisServer):
        def _command(self, port):
            return [*super()._command(port), "--no-such-option", "1"]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)redis does not start.*no-such-option"):
        Broken()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_installed_is_named():
    with pytest.raises(servers.Absent, match="no-such-server is not installed"):
        servers.program("no-such-server")
    with pytest.raises(servers.Absent, match="no-such-program"):
        servers.postgres_program("no-such-program")


def test_a_server_can_be_stopped_in_good_order_and_started_at_the_same_port(redis_server):
    with contextlib.closing(servers.RedisServer()) as server:
        port, pid = server.port, server.pid
        server.stop(signal.SIGTERM)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.start()
        assert (server.port, server.pid == pid) == (port, False)
