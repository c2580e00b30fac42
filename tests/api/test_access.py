"""Authentication, in this process and over real connections, with real keys in a real store."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from api.conftest import eventually
from api.process import ServiceProcess
from api.wire import FORM, call, diarize, head, raw, recording
from diarist.api import access, create_app
from diarist.auth.api_key_lookup import KeyCache
from diarist.errors import StoreUnavailable
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.settings import Settings

ENV_KEY = "the-key-of-the-environment"
ARGUMENTS = {"job_id": "A" * 22, "filename": "x"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def store(tmp_path):
    database = open_database(Settings(_env_file=None, data_dir=tmp_path / "keys"))
    with closing(database):
        yield ApiKeyStore(database)
        for thread in threading.enumerate():
            if thread.name in {"keys", "key-used"}:  # a keyring's, which may outlive the answer
                thread.join(20)


@pytest.fixture
def guarded(settings, jobs, store, tmp_path):
    """The application with the keys of ``store``."""
    return create_app(settings, jobs, KeyCache(settings.model_copy(update={"data_dir": tmp_path / "keys"}), store))


def error_message(answer, path: str) -> str:
    """Check that a response is 401 in the format of ``path``, and return its message."""
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    body = answer.get_json()
    if not path.startswith("/v1/"):
        assert body["code"] == "unauthorized"
        return body["error"]
    assert (body["error"]["code"], body["error"]["type"]) == ("unauthorized", "authentication_error")
    return body["error"]["message"]


def every_route(app):
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        path = adapter.build(rule.endpoint, {name: ARGUMENTS[name] for name in rule.arguments}, force_external=False)
        for method in sorted(rule.methods | {"OPTIONS"}):
            yield method, path


def test_every_route_is_closed_but_those_that_tell_how_it_is(guarded, store):
    store.create("web")
    client = guarded.test_client()
    opened = set()
    tried = list(every_route(guarded))
    assert len(tried) > 20
    for method, path in [*tried, ("GET", "/no/such/address"), ("POST", "/status"), ("DELETE", "/")]:
        answer = client.open(path, method=method)
        if method in ("GET", "HEAD") and path in access.PUBLIC_PATHS:
            assert answer.status_code in (200, 503)
            opened.add(path)
        elif method == "HEAD":
            assert answer.status_code == 401
        else:
            assert error_message(answer, path)
    assert opened == access.PUBLIC_PATHS


def test_what_is_open_is_where_something_is(guarded):
    paths = {rule.rule for rule in guarded.url_map.iter_rules()}
    assert paths >= access.PUBLIC_PATHS


def test_nothing_is_closed_where_there_is_no_key(guarded):
    client = guarded.test_client()
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/no/such/address").status_code == 404
    assert client.get("/v1/jobs", headers={"Authorization": "Basic dXNlcjpwYXNz"}).status_code == 200


@pytest.mark.parametrize("headers", [bearer("whatever"), {"X-API-Key": "dk_" + "a" * 12 + "_" + "b" * 43}])
def test_a_key_is_refused_where_there_is_none(guarded, headers):
    client = guarded.test_client()
    assert "knows no API key" in error_message(client.get("/v1/jobs", headers=headers), "/v1/jobs")
    assert client.get("/status", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        (lambda token, other: bearer(token), True),
        (lambda token, other: {"X-API-Key": token}, True),
        (lambda token, other: {"authorization": f"bearer {token}"}, True),
        (lambda token, other: {"Authorization": f"BEARER   {token}  "}, True),
        (lambda token, other: bearer(token) | {"X-API-Key": token}, True),
        (lambda token, other: {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": token}, True),
        (lambda token, other: bearer(ENV_KEY), True),
        (lambda token, other: bearer(token) | {"X-API-Key": other}, False),
        (lambda token, other: bearer(token) | {"X-API-Key": "wrong"}, False),
        (lambda token, other: bearer("wrong") | {"X-API-Key": token}, False),
        (lambda token, other: {}, False),
        (lambda token, other: {"Authorization": ""}, False),
        (lambda token, other: {"Authorization": "Bearer"}, False),
        (lambda token, other: {"Authorization": "Bearer "}, False),
        (lambda token, other: {"X-API-Key": ""}, False),
        (lambda token, other: {"Authorization": token}, False),
        (lambda token, other: {"Authorization": f"Basic {token}"}, False),
        (lambda token, other: {"Authorization": f"Bearer{token}"}, False),
        (lambda token, other: {"Authorization": f"Bearer {token} {token}"}, False),
        (lambda token, other: {"Authorization": f"Bearer {token}, Bearer {token}"}, False),
        (lambda token, other: bearer(token.swapcase()), False),
        (lambda token, other: bearer(token.upper()), False),
        (lambda token, other: bearer(ENV_KEY.upper()), False),
        (lambda token, other: bearer(token[:-1]), False),
        (lambda token, other: bearer(f'"{token}"'), False),
        (lambda token, other: bearer(token[:16] + other[16:]), False),
        (lambda token, other: bearer("é" * 30), False),
        (lambda token, other: {"Cookie": f"key={token}"}, False),
    ],
)
def test_who_is_let_in(settings, jobs, store, tmp_path, headers, admitted):
    app = create_app(
        settings, jobs, KeyCache(settings.model_copy(update={"api_key": ENV_KEY, "data_dir": tmp_path / "keys"}), store)
    )
    (_, token), (_, other) = store.create("one"), store.create("other")
    answer = app.test_client().get("/v1/jobs", headers=headers(token, other))
    if admitted:
        assert answer.status_code == 200
    else:
        error_message(answer, "/v1/jobs")
    assert app.test_client().get(f"/v1/jobs?api_key={token}&key={token}").status_code == 401


def test_wrong_and_revoked_keys_hear_the_same(guarded, store):
    _, token = store.create("web")
    store.revoke("web")
    client = guarded.test_client()
    revoked = error_message(client.get("/v1/jobs", headers=bearer(token)), "/v1/jobs")
    wrong = error_message(client.get("/v1/jobs", headers=bearer("dk_wrong")), "/v1/jobs")
    missing = error_message(client.get("/v1/jobs"), "/v1/jobs")
    assert revoked == wrong != missing
    assert "keys create" in missing


def test_whose_a_request_is(settings, jobs, store, tmp_path):
    app = create_app(
        settings, jobs, KeyCache(settings.model_copy(update={"api_key": ENV_KEY, "data_dir": tmp_path / "keys"}), store)
    )

    @app.get("/whose")
    def whose() -> dict[str, object]:
        return {"owner": access.owner(), "limit": access.job_limit()}

    client = app.test_client()
    key, token = store.create("web", 7)
    assert client.get("/whose", headers=bearer(token)).get_json() == {"owner": key.id, "limit": 7}
    assert client.get("/whose", headers=bearer(ENV_KEY)).get_json() == {"owner": "env", "limit": None}


def test_whose_a_request_is_without_keys(guarded):
    guarded.get("/whose")(lambda: {"owner": access.owner(), "limit": access.job_limit()})
    assert guarded.test_client().get("/whose").get_json() == {"owner": "", "limit": None}


def test_keys_that_cannot_be_read_let_nobody_in(guarded, store, monkeypatch):
    _, token = store.create("web")

    def broken():
        raise StoreUnavailable("The job store /secret/place is broken.")

    monkeypatch.setattr(store, "snapshot", broken)
    client = guarded.test_client()
    for headers in ({}, bearer(token)):
        answer = client.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "store_unavailable")
        assert "/secret/place" not in answer.text
        assert answer.headers["Retry-After"]
    assert client.get("/status").status_code == 200


def test_no_other_origin_is_let_in(guarded, store):
    _, token = store.create("web")
    asks = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    client = guarded.test_client()
    answers = [
        client.options("/diarize", headers=asks),
        client.options("/v1/jobs", headers=asks | bearer(token)),
        client.get("/v1/jobs", headers=asks | bearer(token)),
        client.get("/status", headers=asks),
    ]
    assert [answer.status_code for answer in answers] == [401, 200, 200, 200]
    for answer in answers:
        assert [name for name, _ in answer.headers if name.lower().startswith("access-control")] == []


class TestOwnersOverHttp:
    @pytest.fixture
    def two(self, guarded, store):
        """The heads of two keys, and a client."""
        return guarded.test_client(), bearer(store.create("one")[1]), bearer(store.create("other")[1])

    @pytest.fixture
    def job(self, two, jobs, tmp_path):
        client, one, _ = two
        script = json.dumps({"until": str(tmp_path / "go on")})
        made = client.post("/v1/jobs", data=recording(script), headers=FORM | one).get_json()
        yield made
        jobs.delete(made["id"])

    def test_who_listens_is_sent_away_when_the_key_is_revoked(self, two, job, store, monkeypatch):
        client, one, _ = two
        monkeypatch.setattr("diarist.api.job_events.KEY_CHECK_INTERVAL_S", 0.0)
        with closing(client.get(job["links"]["events"], headers=one)) as answer:
            events = answer.iter_encoded()
            assert b"retry" in next(events)
            assert b"queued" in next(events)
            store.revoke("one")
            # The job goes on until the test is over, and so would the stream.
            assert all(b"ended" not in event for event in events)

    def test_a_job_is_its_owners_alone(self, guarded, two, job):
        client, one, other = two
        mine = f"/v1/jobs/{job['id']}"
        assert client.get(mine, headers=one).status_code == 200
        tried = [
            (method, path.replace("A" * 22, job["id"])) for method, path in every_route(guarded) if "A" * 22 in path
        ]
        assert len(tried) > 6
        for method, path in tried:
            if method == "OPTIONS":
                continue
            answer = client.open(path, method=method, headers=other)
            assert answer.status_code == 404, (method, path)
            if method != "HEAD":
                unknown = client.open(path.replace(job["id"], "A" * 22), method=method, headers=other)
                shown, as_if = answer.get_json()["error"], unknown.get_json()["error"]
                assert (shown["code"], shown["type"]) == (as_if["code"], as_if["type"])
        assert client.get(mine, headers=one).get_json()["state"] in ("queued", "running")

    def test_a_list_is_of_ones_own(self, two, job):
        client, one, other = two
        assert [each["id"] for each in client.get("/v1/jobs", headers=one).get_json()["data"]] == [job["id"]]
        assert client.get("/v1/jobs", headers=other).get_json()["data"] == []

    def test_a_key_with_a_limit(self, store, guarded, tmp_path):
        client, limited = guarded.test_client(), bearer(store.create("limited", 1)[1])
        script = recording(json.dumps({"until": str(tmp_path / "go on")}))
        first = client.post("/v1/jobs", data=script, headers=FORM | limited)
        assert first.status_code == 202
        second = client.post("/v1/jobs", data=script, headers=FORM | limited)
        assert (second.status_code, second.get_json()["error"]["code"]) == (429, "queue_full")
        assert client.delete(first.headers["Location"], headers=limited).status_code == 204


@pytest.fixture(scope="module")
def guarded_service(tmp_path_factory):
    service = ServiceProcess(
        tmp_path_factory.mktemp("guarded"), API_KEY=ENV_KEY, FLASK_DEBUG="1", MIN_FREE_MB=0, MAX_UPLOAD_MB=1
    )
    try:
        service.wait_for("is ready")
        yield service
    finally:
        assert service.stop() == 0


@pytest.mark.slow
class TestOverTheWire:
    def keys(self, service, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "diarist.cli", "keys", *arguments],
            env={"PATH": "", "DATA_DIR": str(service.data), "LOG_FILE": str(service.folder / "cli.log")},
            cwd=service.folder, capture_output=True, text=True, check=True, timeout=60,
        ).stdout.strip()  # fmt: skip

    def test_a_strangers_upload_is_refused_at_its_headers(self, guarded_service):
        for lines in ((), ("Authorization: Bearer wrong",), ("X-API-Key: wrong",)):
            for length in (500_000, None):
                chunked = () if length else ("Transfer-Encoding: chunked",)
                answer = raw(guarded_service.address, head(length, *lines, *chunked, "Expect: 100-continue"))
                assert answer.status == 401, answer
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["connection"] == "close"
                assert list(answer.json) == ["error", "code", "request_id"]
        answer = raw(guarded_service.address, head(500_000).replace(b"/diarize", b"/v1/jobs"))
        assert answer.json["error"]["type"] == "authentication_error"
        assert guarded_service.left_behind() == []

    @pytest.mark.parametrize("line", ["GET /status", "GET /", "HEAD /metrics", "GET /openapi.json"])
    def test_what_is_open_to_strangers_takes_no_body_of_theirs(self, guarded_service, line):
        for framing in ("Content-Length: 500000", "Transfer-Encoding: chunked"):
            asked = f"{line} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
            with socket.create_connection(guarded_service.address, timeout=20) as connection:
                connection.sendall(asked)
                assert connection.recv(12) == b"HTTP/1.1 401"
        assert call(guarded_service.address, "GET", "/status", headers={"Content-Length": "0"}).status == 200

    def test_a_guest_is_asked_to_go_on(self, guarded_service):
        asked = head(500_000, f"Authorization: Bearer {ENV_KEY}", "Expect: 100-continue")
        with socket.create_connection(guarded_service.address, timeout=20) as connection:
            connection.sendall(asked)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 100")

    def test_a_body_without_headers_of_its_own_is_not_mistaken(self, guarded_service):
        answer = call(guarded_service.address, "POST", "/status", b"x" * 1_000)
        assert answer.status == 401
        assert call(guarded_service.address, "GET", "/status").status == 200
        assert call(guarded_service.address, "GET", "//v1/jobs").status == 401
        assert call(guarded_service.address, "GET", "/%76%31/jobs").status == 401
        assert raw(guarded_service.address, b"GET http://x/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n").status == 401
        assert (
            raw(
                guarded_service.address,
                b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX_API_Key: " + ENV_KEY.encode() + b"\r\n\r\n",
            ).status
            == 401
        )

    def test_keys_come_and_go_while_it_runs(self, guarded_service):
        token = self.keys(guarded_service, "create", "web")
        assert diarize(guarded_service.address, headers=bearer(token)).status == 200
        key_id = token[3:15]
        eventually(lambda: '"used_at": null' not in self.keys(guarded_service, "list", "--json"))
        self.keys(guarded_service, "revoke", key_id)
        eventually(lambda: call(guarded_service.address, "GET", "/v1/jobs", headers=bearer(token)).status == 401)
        assert call(guarded_service.address, "GET", "/v1/jobs", headers=bearer(ENV_KEY)).status == 200

    def test_no_key_is_in_the_log(self, guarded_service):
        token = self.keys(guarded_service, "create", "seen")
        wrong = "dk_" + "W" * 12 + "_" + "w" * 43
        for sent in (token, wrong, ENV_KEY):
            call(guarded_service.address, "GET", "/v1/jobs", headers=bearer(sent))
            call(guarded_service.address, "GET", f"/v1/jobs?key={sent}", headers={"X-API-Key": sent})
            raw(guarded_service.address, head(3, f"Authorization: Bearer {sent}"), b"xxx")
            raw(guarded_service.address, f"GET / HTTP/1.1\r\nAuthorization: Bearer {sent}\x01\r\n\r\n".encode())
            call(guarded_service.address, "GET", f"/{sent}", headers={"X-Request-ID": f"of-{sent[:8]}"})
            guarded_service.wait_for(f"request=of-{sent[:8]}.*404|request=of-{sent[:8]}.*401")
        log = "\n".join(guarded_service.log) + (guarded_service.folder / "logs" / "service.log").read_text()
        assert "401" in log
        for secret in (token[16:], wrong[16:], ENV_KEY):
            assert secret not in log


@pytest.mark.slow
class TestListening:
    @pytest.mark.parametrize(("host", "instead"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
    def test_without_a_key_it_listens_on_this_machine_alone(self, start, host, instead):
        if ":" in host and not _has_ipv6():
            pytest.skip("no IPv6 here")
        service = start(FLASK_HOST=host)
        warning = service.wait_for("No API key is configured").string
        assert " WARNING " in warning
        for word in ("diarist keys create", "API_KEY", f"FLASK_HOST {host}"):
            assert word in warning
        assert service.wait_for(r"Listening on (\S+)")[1].startswith(f"http://{instead}:")
        assert sum("Listening on" in line for line in service.log) == 1

    def test_on_this_machine_it_says_so_without_a_warning(self, start):
        service = start()
        assert " INFO " in service.wait_for("No API key is configured").string
        service.wait_for("is ready")
        assert service.stop() == 0
        assert not [line for line in service.log if re.search(r" (WARNING|ERROR) ", line)]

    def test_with_a_key_of_the_settings_flask_host_counts(self, start):
        service = start(FLASK_HOST="0.0.0.0", API_KEY=ENV_KEY)
        assert service.wait_for(r"Listening on (\S+)")[1].startswith("http://0.0.0.0:")
        assert "No API key" not in "\n".join(service.log)

    def test_with_a_key_of_the_store_flask_host_counts_also_once_it_is_revoked(self, start, tmp_path):
        with closing(open_database(Settings(_env_file=None, data_dir=tmp_path / "data"))) as database:
            ApiKeyStore(database).create("web")
            ApiKeyStore(database).revoke("web")
        service = start(FLASK_HOST="0.0.0.0")
        assert service.wait_for(r"Listening on (\S+)")[1].startswith("http://0.0.0.0:")
        assert call(("127.0.0.1", service.address[1]), "GET", "/v1/jobs").status == 401

    def test_a_key_that_is_too_short_keeps_it_from_starting(self, start):
        service = start(API_KEY="short")
        assert service.wait() != 0
        assert "API_KEY has 5 characters" in "\n".join(service.log)
        assert "short" not in "\n".join(service.log)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
