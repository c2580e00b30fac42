"""Whose certificate is trusted: never one that nobody vouches for, and none of another name."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from diarist.errors import UrlRefused, UrlUnreachable, UrlUnusable
from diarist.outbound.deadline import POLL_INTERVAL_S
from diarist.outbound.download import fetch
from diarist.outbound.webhooks import post

NAME = "media.example.com"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of NAME, signed by itself, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure_site(make_site, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site = make_site(context)
    site.answer("/a.wav", b"RIFF")
    return site


@pytest.fixture
def get(tmp_path, loopback):
    def fetch_it(url, **options):
        asked = {"limit_bytes": 99, "timeout_s": 20.0, "networks": loopback, "resolve": lambda *_: ("127.0.0.1",)}
        return fetch(url, tmp_path / "recording", **{**asked, **options})

    return fetch_it


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=certificate)


def test_a_certificate_that_nobody_vouches_for(secure_site, get):
    with pytest.raises(UrlUnusable, match=r"certificate .* cannot be trusted \(self-signed certificate\)"):
        get(secure_site.url("/a.wav", NAME))
    assert not secure_site.asked


@pytest.mark.parametrize("host", [NAME, f"{NAME}."])
def test_the_name_is_what_is_asked_for_and_checked(host, secure_site, get, trusting):
    assert get(secure_site.url("/a.wav", host), tls=trusting).size_bytes == 4
    assert secure_site.names == [NAME]
    assert secure_site.asked[0].headers["host"] == f"{host}:{secure_site.port}"


@pytest.mark.parametrize("host", ["other.example.com", "127.0.0.1"])
def test_a_certificate_of_another_name(host, secure_site, get, trusting):
    with pytest.raises(UrlUnusable, match="certificate"):
        get(secure_site.url("/a.wav", host), tls=trusting)
    assert not secure_site.asked


def test_webhooks_go_to_nobody_else_either(secure_site, loopback):
    delivered = post(
        secure_site.url("/", NAME), b"{}", {}, timeout_s=20, networks=loopback, resolve=lambda *_: ("127.0.0.1",)
    )
    assert not delivered.ok
    assert "certificate" in delivered.error
    assert not secure_site.asked


def test_a_redirect_from_http_to_https(site, secure_site, get, trusting):
    url = site.redirect("/", secure_site.url("/a.wav", NAME))
    assert get(url, tls=trusting).size_bytes == 4


def test_no_redirect_from_https_to_http(site, secure_site, get, trusting):
    site.answer("/a.wav", b"RIFF")
    secure_site.redirect("/", site.url("/a.wav"))
    with pytest.raises(UrlRefused, match="from https to http"):
        get(secure_site.url("/", NAME), tls=trusting)
    assert not site.asked


def test_https_to_where_none_is_spoken(site, get):
    with pytest.raises(UrlUnreachable):
        get(site.url("/").replace("http:", "https:"))


def test_silence_during_the_handshake(get):
    """The server takes the connection and says nothing: its queue does that without it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(UrlUnreachable, match=r"did not respond for 0\.2 s"):
            get(url, idle_timeout_s=0.2)


@pytest.mark.slow
def test_pauses_longer_than_a_look_up_lose_nothing(secure_site, get, trusting):
    secure_site.raw(
        "/slow", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"RI", b"FF", every_s=POLL_INTERVAL_S * 1.4
    )
    told = []
    assert get(secure_site.url("/slow", NAME), tls=trusting, progress=lambda *it: told.append(it)).size_bytes == 4
    assert (2, 4) in told
