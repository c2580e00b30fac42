from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from diarist.errors import Cancelled, ConfigurationError
from diarist.outbound.webhooks import MAX_RESPONSE_BYTES, RETRY_DELAYS_S, TOLERANCE_S, post, secret_for, sign, verify

MASTER = "a master secret of the service"
SECRET = secret_for(MASTER, "key_1")
BODY = json.dumps({"type": "job.succeeded", "data": {"id": "ä"}}, ensure_ascii=False).encode()


class TestSecrets:
    def test_each_owner_has_one_of_32_bytes(self):
        secrets = {secret_for(MASTER, owner) for owner in ("", "key_1", "key_2")}
        assert len(secrets) == 3
        for secret in secrets:
            assert secret.startswith("whsec_")
            assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32

    def test_it_is_the_same_every_time_and_another_of_another_master(self):
        assert secret_for(MASTER, "key_1") == SECRET == "whsec_IbPZePcNQfGT9g+gHquijDiT+0U3uRzdQq5EEhhjmzE="
        assert secret_for(MASTER + ".", "key_1") != SECRET

    def test_one_that_could_be_guessed(self):
        with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET must have at least 20 characters"):
            secret_for("short", "key_1")


class TestAStandardReceiver:
    """The receiver is the library of those who wrote the standard."""

    def test_it_takes_what_is_signed(self):
        assert Webhook(SECRET).verify(BODY, sign(SECRET, "msg_1", BODY)) == json.loads(BODY)

    @given(st.binary(max_size=200).filter(lambda body: body.decode("utf-8", "ignore").encode() == body), st.uuids())
    def test_it_takes_any_text(self, body, message_id):
        Webhook(SECRET).verify(body, sign(SECRET, str(message_id), body), json_parse=False)

    @pytest.mark.parametrize("late_s", [-400, 400])
    def test_it_refuses_what_is_stale(self, late_s):
        headers = sign(SECRET, "msg_1", BODY, at=time.time() + late_s)
        with pytest.raises(WebhookVerificationError, match="too"):
            Webhook(SECRET).verify(BODY, headers)

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
    def test_it_refuses_headers_that_were_touched(self, name):
        touched = {"webhook-id": "msg_2", "webhook-timestamp": str(int(time.time()) - 1)}[name]
        with pytest.raises(WebhookVerificationError, match="No matching"):
            Webhook(SECRET).verify(BODY, {**sign(SECRET, "msg_1", BODY, at=time.time() + 9), name: touched})

    def test_it_refuses_a_body_that_was_touched(self):
        with pytest.raises(WebhookVerificationError, match="No matching"):
            Webhook(SECRET).verify(BODY + b" ", sign(SECRET, "msg_1", BODY))

    def test_it_refuses_the_secret_of_another(self):
        with pytest.raises(WebhookVerificationError, match="No matching"):
            Webhook(secret_for(MASTER, "key_2")).verify(BODY, sign(SECRET, "msg_1", BODY))

    def test_its_own_signature_is_ours(self):
        from datetime import UTC, datetime

        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        expected = Webhook(SECRET).sign("msg_1", at, BODY.decode())
        headers = sign(SECRET, "msg_1", BODY, at=at.timestamp() + 0.9)
        assert headers["webhook-signature"] == expected
        assert verify(SECRET, {**headers, "webhook-signature": expected}, BODY, now=at.timestamp())


class TestVerify:
    NOW = 1_800_000_000.0

    def headers(self, **changed):
        signed = sign(SECRET, "msg_1", BODY, at=self.NOW)
        return {**signed, **{name.replace("_", "-"): value for name, value in changed.items()}}

    def check(self, headers, body=BODY, now=NOW):
        return verify(SECRET, headers, body, now=now)

    def test_the_true_one(self):
        assert self.check(self.headers())
        assert self.check({name.title(): value for name, value in self.headers().items()})

    @pytest.mark.parametrize("off_s", [-TOLERANCE_S, TOLERANCE_S])
    def test_the_window(self, off_s):
        assert self.check(self.headers(), now=self.NOW + off_s)
        assert not self.check(self.headers(), now=self.NOW + off_s * 1.01)

    def test_one_of_several_signatures_is_enough(self):
        right = self.headers()["webhook-signature"]
        assert self.check(self.headers(webhook_signature=f"v1a,x v1,AAAA {right}"))
        assert not self.check(self.headers(webhook_signature=right.replace("v1,", "v1a,")))

    @pytest.mark.parametrize(
        "changed",
        [
            {"webhook_id": "msg_2"},
            {"webhook_id": ""},
            {"webhook_timestamp": "1800000001"},
            {"webhook_timestamp": ""},
            {"webhook_timestamp": "1.8e9"},
            {"webhook_timestamp": "９"},
            {"webhook_timestamp": "9" * 5_000},
            {"webhook_signature": ""},
            {"webhook_signature": "v1"},
            {"webhook_signature": "v1,"},
            {"webhook_signature": "v1,ä"},
            {"webhook_signature": "v1,AAAA"},
        ],
    )
    def test_what_was_touched(self, changed):
        assert not self.check(self.headers(**changed))

    def test_another_body_another_secret_no_headers(self):
        assert not self.check(self.headers(), BODY + b"\n")
        assert not verify(secret_for(MASTER, "key_2"), self.headers(), BODY, now=self.NOW)
        assert not self.check({})

    def test_a_message_without_an_id_could_be_sent_again_and_again(self):
        assert not self.check(sign(SECRET, "", BODY, at=self.NOW))

    @pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", SECRET.removeprefix("whsec_")])
    def test_no_secret_is_no_secret(self, secret):
        with pytest.raises(ValueError, match="whsec_"):
            verify(secret, self.headers(), BODY)
        with pytest.raises(ValueError, match="whsec_"):
            sign(secret, "msg_1", BODY)


class TestPost:
    @pytest.fixture
    def send(self, loopback):
        def send_it(url, **options):
            return post(url, BODY, sign(SECRET, "msg_1", BODY), **{"timeout_s": 20, "networks": loopback, **options})

        return send_it

    @pytest.mark.parametrize("status", [200, 201, 204])
    def test_a_receiver_gets_what_it_can_check(self, status, site, send):
        delivered = send(site.answer("/hook?x=1", status=status))
        assert (delivered.ok, delivered.status, delivered.error) == (True, status, "")
        assert 0 < delivered.took_s < 20
        (asked,) = site.asked
        assert (asked.method, asked.path, asked.body) == ("POST", "/hook?x=1", BODY)
        assert asked.headers["content-type"] == "application/json"
        assert Webhook(SECRET).verify(asked.body, asked.headers) == json.loads(BODY)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_no_redirect_is_followed(self, status, site, send):
        site.answer("/new")
        delivered = send(site.redirect("/hook", "/new", status))
        assert (delivered.ok, delivered.status) == (False, status)
        assert "do not follow redirects" in delivered.error
        assert [asked.path for asked in site.asked] == ["/hook"]

    @pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
    def test_a_receiver_that_will_not_have_it(self, status, site, send):
        delivered = send(site.answer("/", status=status))
        assert (delivered.ok, delivered.status) == (False, status)
        assert f"answered {status}" in delivered.error

    def test_a_receiver_that_hangs(self, site, send):
        delivered = send(site.raw("/", hang=True), timeout_s=0.2)
        assert (delivered.ok, delivered.status) == (False, 0)
        assert "longer than 0.2 s" in delivered.error

    def test_a_receiver_that_answers_drop_by_drop(self, site, send):
        delivered = send(site.raw("/", b"HTTP/1.0 200 OK\r\n", b"x", every_s=0.02, forever=True), timeout_s=0.4)
        assert (delivered.ok, delivered.status) == (False, 0)

    def test_a_receiver_that_reads_nothing(self, loopback):
        """More than fits into the buffers of both sides, so that sending has to wait."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            delivered = post(url, b"x" * 2**25, {}, timeout_s=0.4, networks=loopback)
        assert delivered.status == 0
        assert "longer than 0.4 s" in delivered.error

    def test_once_its_status_is_there_the_message_is_delivered(self, site, send):
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", b"x", every_s=0.02, forever=True)
        assert send(url, timeout_s=0.4).ok

    def test_an_answer_without_end_is_not_read_to_it(self, site, send):
        delivered = send(site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 2**12, forever=True))
        assert delivered.ok
        # The site counts a piece once all of it is sent, which of the last one may be never.
        assert MAX_RESPONSE_BYTES - 2**13 <= site.written_bytes < 2**26

    def test_a_receiver_that_breaks_off(self, site, send):
        delivered = send(site.raw("/", b"HTTP/1.1 "))
        assert (delivered.ok, delivered.status) == (False, 0)
        assert "closed the connection" in delivered.error

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "169.254.169.254", "10.0.0.1"])
    def test_none_goes_into_a_private_network(self, host, site, send):
        delivered = send(site.url(host=host), networks=())
        assert (delivered.ok, delivered.status) == (False, 0)
        assert "ALLOWED_NETWORKS" in delivered.error
        assert not site.asked

    def test_what_is_no_url(self, send):
        assert "https://" in send("file:///etc/passwd").error

    def test_an_attempt_can_be_called_off(self, site, send):
        def stop():
            raise Cancelled("enough")

        with pytest.raises(Cancelled):
            send(site.raw("/", hang=True), check=stop)

    def test_when_to_try_again(self):
        assert RETRY_DELAYS_S == (0, 30, 120, 600, 3_600)
