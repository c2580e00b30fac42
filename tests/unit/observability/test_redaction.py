"""Secrets are masked, and the rest of a message is kept."""

from __future__ import annotations

import pytest

from diarist.observability.redaction import Redactor, names_secret
from diarist.settings import Settings

TOKEN = "dk_AbCdEf012345_" + "s" * 20 + "-_" + "S" * 21


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (f"key {TOKEN}, refused", "key dk_AbCdEf012345_***, refused"),
        (f"?key={TOKEN}&x=1", "?key=dk_AbCdEf012345_***&x=1"),
        ("dk_something-wrong", "dk_***"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer ***"),
        ("'Authorization': 'Basic dXNlcjpwYXNz'", "'Authorization': 'Basic ***'"),
        ("b'authorization': b'bearer abc'", "b'authorization': b'bearer ***'"),
        ("X-API-Key: abc", "X-API-Key: ***"),
        ("Proxy-Authorization: Digest abc", "Proxy-Authorization: Digest ***"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("sent bearer abcdefghijklmnopqrstuvwxyz", "sent bearer ***"),
        ("postgresql://diarist:pass@host/name", "postgresql://diarist:***@host/name"),
        ("redis://:p@ss@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://diarist:p/a?s#s@host/name", "postgresql://diarist:***@host/name"),
        ("host=db password=pass dbname=x", "host=db password=*** dbname=x"),
        ("S3_SECRET_KEY=abc WEBHOOK_SECRET='abc'", "S3_SECRET_KEY=*** WEBHOOK_SECRET='***'"),
        ("https://b/k?X-Amz-Signature=0af&X-Amz-Date=1", "https://b/k?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://b/k?access_token=abc", "https://b/k?access_token=***"),
    ],
)
def test_a_secret_is_masked(text, seen):
    assert Redactor()(text) == seen


@pytest.mark.parametrize(
    "text",
    [
        "Listening on http://127.0.0.1:5000",
        "POST /v1/jobs 202 12 ms",
        "The key dk_ is none. Send it as Authorization or X-API-Key.",
        "someone@example.org wrote to http://example.org/a:b",
        "Set API_KEY, or make one with `diarist keys create`.",
        "https://example.org/path?x=1&y=2#part",
        "tokens: 5, no bearer of news",
        "redis://redis:6379/0 and postgresql://diarist@host/name",
    ],
)
def test_what_is_no_secret_stays(text):
    assert Redactor()(text) == text


def test_known_secrets_are_masked_wherever_they_are_and_the_longest_first():
    mask = Redactor(["secret-secret", "secret-secret-longer", "", "short"])
    assert mask("xsecret-secret-longery secret-secret short") == "x***y *** short"


@pytest.mark.parametrize("url", ["postgresql://[broken", "", "nonsense"])
def test_settings_that_are_wrong_cost_nothing(url):
    assert Redactor.of(Settings(_env_file=None, database_url=url))("words") == "words"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece",
    ["://a:", "://", ":", "token", "token ", "token=", '"token', '"token" ', "dk_", "whsec_", "bearer ", "a", "a.",
     "://a:b@", "://a:b/", "authorization: ", "authorization: bearer ", "x-api-key '", "=", " =", "password\t"],
)  # fmt: skip
def test_hostile_text_takes_no_time(piece):
    text = piece * (200_000 // len(piece))
    Redactor()(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("Authorization", True), ("refresh_token", True), ("S3_SECRET_KEY", True), ("message", False), ("tokens", False)],
)
def test_names_that_say_secret(name, secret):
    assert names_secret(name) is secret
