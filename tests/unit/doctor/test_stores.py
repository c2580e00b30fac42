"""Checks of real job stores, queues, recording storage and keys, and of their failures."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
import redis

from diarist.doctor import stores
from diarist.doctor.findings import run_concurrently
from diarist.jobs.db import schema
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import FILE_NAME, open_database
from diarist.settings import Settings


@pytest.fixture
def make(tmp_path):
    def settings(**changes: object) -> Settings:
        return Settings(_env_file=None, **{"data_dir": tmp_path / "data", "min_free_mb": 0} | changes)

    return settings


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def finding(check, settings):
    ((_, found),) = run_concurrently({"check": check}, settings)
    return found


def keep(settings, change=lambda database: None):
    with closing(open_database(settings)) as database:
        return change(database)


class TestSqlite:
    def test_a_missing_store_is_not_created(self, make, tmp_path):
        for check in (stores.check_job_store, stores.check_clock, stores.check_keys, stores.check_media):
            assert finding(check, make()).level == "ok"
        assert list(tmp_path.iterdir()) == []

    def test_a_store_in_use_is_ok(self, make):
        with closing(open_database(make())) as database, database.writing():
            found = finding(stores.check_job_store, make())
        assert found.level == "ok"
        assert FILE_NAME in found.message

    def test_an_older_version_is_unchanged(self, make):
        keep(make())
        path = make().data_dir / FILE_NAME
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE schema_version SET version = 1")
            connection.commit()
        found = finding(stores.check_job_store, make())
        assert (found.level, "upgraded" in found.message) == ("ok", True)
        assert finding(stores.check_keys, make()).level == "ok"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT version FROM schema_version").fetchone() == (1,)

    def test_one_of_a_newer_version_is_an_error(self, make):
        keep(make())
        with closing(sqlite3.connect(make().data_dir / FILE_NAME)) as connection:
            connection.execute(f"UPDATE schema_version SET version = {schema.VERSION + 1}")
            connection.commit()
        found = finding(stores.check_job_store, make())
        assert found.level == "error"
        assert f"version {schema.VERSION + 1}" in found.message

    def test_a_damaged_one_is_an_error(self, make):
        keep(make(), lambda database: [ApiKeyStore(database).create(f"key {number}") for number in range(200)])
        path = make().data_dir / FILE_NAME
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = bytearray(path.read_bytes())
        page = int.from_bytes(content[16:18], "big")
        for number in range(len(content) // page // 2, len(content) // page):
            content[number * page : number * page + 64] = b"\xff" * 64
        path.write_bytes(content)
        found = finding(stores.check_job_store, make())
        assert found.level == "error"
        assert "restart it" in found.message

    def test_something_else_in_its_place_is_an_error(self, make):
        make().data_dir.mkdir()
        (make().data_dir / FILE_NAME).write_bytes(b"no database " * 1_000)
        for check in (stores.check_job_store, stores.check_keys):
            found = finding(check, make())
            assert found.level == "error"
            assert "cannot be read" in found.message


class TestPostgres:
    def test_an_empty_database_is_ok_and_unchanged(self, make, postgres_server):
        url = postgres_server.fresh_database()
        for check in (stores.check_job_store, stores.check_clock, stores.check_keys):
            assert finding(check, make(database_url=url)).level == "ok"
        assert "PostgreSQL" in finding(stores.check_job_store, make(database_url=url)).message
        assert "will be created" in finding(stores.check_job_store, make(database_url=url)).message
        with stores.open_existing_job_store(make(database_url=url)) as database:
            assert database is None

    def test_one_that_is_kept_in(self, make, postgres_server):
        settings = make(database_url=postgres_server.fresh_database())
        keep(settings, lambda database: ApiKeyStore(database).create("web"))
        assert "will be created" not in finding(stores.check_job_store, settings).message
        assert finding(stores.check_keys, settings).message.startswith("1 valid")

    def test_a_slow_one_is_a_warning(self, make, postgres_server, monkeypatch):
        monkeypatch.setattr(stores, "MAX_LATENCY_S", 0.0)
        found = finding(stores.check_job_store, make(database_url=postgres_server.fresh_database()))
        assert found.level == "warning"

    @pytest.mark.parametrize(("ahead_s", "level"), [(10, "warning"), (-1_000, "error")])
    def test_a_wrong_clock_is_reported(self, make, postgres_server, monkeypatch, ahead_s, level):
        real = stores.utc_now
        monkeypatch.setattr(stores, "utc_now", lambda: real() + timedelta(seconds=ahead_s))
        found = finding(stores.check_clock, make(database_url=postgres_server.fresh_database()))
        assert found.level == level
        assert "NTP" in found.message

    def test_one_that_is_not_there_is_an_error_without_the_password(self, make, free_port):
        settings = make(database_url=f"postgresql://diarist:the-password@127.0.0.1:{free_port}/diarist")
        for check in (stores.check_job_store, stores.check_clock, stores.check_keys):
            found = finding(check, settings)
            assert found.level == "error"
            assert "DATABASE_URL" in found.message
            assert "the-password" not in found.message


class TestQueue:
    def test_no_queue_is_ok(self, make):
        assert finding(stores.check_queue, make()).level == "ok"

    def test_one_that_answers(self, make, redis_server):
        assert finding(stores.check_queue, make(queue_url=redis_server.fresh_url())).level == "ok"

    def test_one_that_forgets_is_an_error(self, make, redis_server):
        with closing(redis.Redis.from_url(redis_server.url)) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            try:
                found = finding(stores.check_queue, make(queue_url=redis_server.url))
            finally:
                client.config_set("maxmemory-policy", "noeviction")
        assert found.level == "error"
        assert "allkeys-lru" in found.message
        assert "redis-cli config set" in found.message

    def test_a_hidden_policy_is_a_warning(self, make, redis_server):
        with closing(redis.Redis.from_url(redis_server.url)) as client:
            client.acl_setuser("narrow", enabled=True, passwords=["+narrow-password"], commands=["+ping", "+info"])
            try:
                with_user = redis_server.url.replace("redis://", "redis://narrow:narrow-password@")
                found = finding(stores.check_queue, make(queue_url=with_user))
                wrong = finding(stores.check_queue, make(queue_url=with_user.replace("w-p", "w-wrong-p")))
            finally:
                client.acl_deluser("narrow")
        assert (found.level, "does not reveal" in found.message) == ("warning", True)
        assert wrong.level == "error"
        assert "narrow-wrong-password" not in wrong.message

    @pytest.mark.parametrize(
        "url", ["redis://:the-password@127.0.0.1:{port}/0", "amqp://:the-password@127.0.0.1:{port}"]
    )
    def test_one_that_is_not_there_is_an_error_without_the_password(self, make, free_port, url):
        found = finding(stores.check_queue, make(queue_url=url.format(port=free_port)))
        assert found.level == "error"
        assert "QUEUE_URL" in found.message
        assert "the-password" not in found.message

    def test_the_library_that_is_missing_is_named(self, make, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "redis", None)
        found = finding(stores.check_queue, make(queue_url="redis://127.0.0.1"))
        assert found.level == "error"
        assert "pip install 'diarist[distributed]'" in found.message


class TestMedia:
    def test_a_folder_is_tested_and_left_empty(self, make, tmp_path):
        found = finding(stores.check_media, make(media_url=str(tmp_path / "media")))
        assert found.level == "ok"
        assert list((tmp_path / "media").iterdir()) == []

    def test_a_folder_that_cannot_be_is_an_error(self, make, tmp_path):
        (tmp_path / "media").write_text("a file")
        assert finding(stores.check_media, make(media_url=str(tmp_path / "media"))).level == "error"

    def test_s3(self, make, s3_server):
        there = s3_server.settings(s3_server.fresh_bucket())
        assert finding(stores.check_media, make(**there)).level == "ok"
        found = finding(stores.check_media, make(**there | {"media_url": "s3://no-such-bucket"}))
        assert found.level == "error"
        assert "no-such-bucket" in found.message


class TestKeys:
    @pytest.mark.parametrize(
        ("settings", "level", "words"),
        [
            ({}, "ok", "only from this machine"),
            ({"flask_host": "0.0.0.0"}, "warning", "instead of FLASK_HOST 0.0.0.0"),
            ({"api_key": "k" * 20}, "ok", "1 valid; the service listens on the loopback address"),
            ({"api_key": "k" * 20, "flask_host": "::"}, "ok", "1 valid; the service listens on FLASK_HOST ::"),
            ({"api_key": "short"}, "error", "API_KEY has 5 characters"),
        ],
    )
    def test_without_any_in_the_store(self, make, settings, level, words):
        found = finding(stores.check_keys, make(**settings))
        assert found.level == level
        assert words in found.message

    def test_those_in_the_store(self, make):
        keep(make(), lambda database: [ApiKeyStore(database).create(name) for name in ("web", "batch")])
        found = finding(stores.check_keys, make(flask_host="0.0.0.0"))
        assert (found.level, found.message) == ("ok", "2 valid; the service listens on FLASK_HOST 0.0.0.0")
        keep(make(), lambda database: [ApiKeyStore(database).revoke(name) for name in ("web", "batch")])
        found = finding(stores.check_keys, make(flask_host="0.0.0.0"))
        assert (found.level, "every request is rejected" in found.message) == ("warning", True)

    def test_webhooks(self, make):
        assert finding(stores.check_webhooks, make()).level == "ok"
        assert "10.1.0.0/16" in finding(stores.check_webhooks, make(allowed_networks="10.1.0.0/16")).message
        assert finding(stores.check_webhooks, make(webhook_secret="w" * 20)).level == "ok"
        assert "WEBHOOK_SECRET" in finding(stores.check_webhooks, make(webhook_secret="short")).message
        assert finding(stores.check_webhooks, make(allowed_networks="10.1.0.0/99")).level == "error"
