from __future__ import annotations

import resource
import socket
import tracemalloc

import pytest

from diarist import __version__
from diarist.errors import (
    Cancelled,
    InvalidOption,
    StorageFull,
    UploadTooLarge,
    UrlRefused,
    UrlUnreachable,
    UrlUnusable,
)
from diarist.outbound.download import MAX_REDIRECTS, FetchedFile, fetch
from diarist.outbound.receive_limits import JUDGED_PIECES

SOUND = bytes(range(256)) * 1_024  # 256 kB


@pytest.fixture
def target(tmp_path):
    return tmp_path / "recording"


@pytest.fixture
def get(target, loopback):
    """Fetch from this machine to ``target``, which must not be there after an error."""

    def fetch_it(url, **options):
        options = {"limit_bytes": 2**20, "timeout_s": 20.0, "networks": loopback, **options}
        try:
            return fetch(url, target, **options)
        except BaseException:
            assert not target.exists()
            raise

    return fetch_it


class TestWhatIsThere:
    def test_a_recording_arrives(self, site, get, target):
        url = site.answer("/meetings/monday%20call.wav?sig=s", SOUND)
        assert get(url) == FetchedFile(len(SOUND), "monday call.wav")
        assert target.read_bytes() == SOUND
        (asked,) = site.asked
        assert asked.method == "GET"
        assert asked.path == "/meetings/monday%20call.wav?sig=s"
        assert asked.headers["user-agent"] == f"Diarist/{__version__}"
        assert asked.headers["accept-encoding"] == "identity"
        assert asked.headers["host"] == f"127.0.0.1:{site.port}"

    def test_the_name_stays_the_host(self, site, get):
        site.answer("/", SOUND)
        get(site.url(host="media.example.com"), resolve=lambda *_: ("127.0.0.1",))
        assert site.asked[0].headers["host"] == f"media.example.com:{site.port}"

    def test_in_chunks_of_a_size_that_nobody_names(self, site, get, target):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        piece = b"%x\r\n%b\r\n" % (len(SOUND), SOUND)
        told = []
        url = site.raw("/", head, piece, piece, b"0\r\n\r\n")
        assert get(url, progress=lambda *it: told.append(it)).size_bytes == 2 * len(SOUND)
        assert target.read_bytes() == SOUND * 2
        assert told[0] == (0, None)
        assert told[-1] == (2 * len(SOUND), None)

    def test_until_the_connection_ends(self, site, get, target):
        get(site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", SOUND))
        assert target.read_bytes() == SOUND

    def test_what_stood_there_is_overwritten(self, site, get, target):
        target.write_bytes(SOUND * 3)
        get(site.answer("/", b"RIFF"))
        assert target.read_bytes() == b"RIFF"

    def test_how_far_it_is_is_told(self, site, get):
        told = []
        get(site.answer("/", SOUND), progress=lambda *it: told.append(it))
        assert told[0] == (0, len(SOUND))
        assert told[-1] == (len(SOUND), len(SOUND))

    def test_what_it_says_that_it_is_does_not_matter(self, site, get):
        assert get(site.answer("/a", SOUND, headers={"Content-Type": "text/html"})).size_bytes == len(SOUND)

    def test_exactly_the_limit_is_taken(self, site, get):
        assert get(site.answer("/", SOUND), limit_bytes=len(SOUND)).size_bytes == len(SOUND)

    def test_it_never_lies_in_memory(self, site, get):
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", *[SOUND] * 64)
        tracemalloc.start()
        try:
            assert get(url, limit_bytes=2**30).size_bytes == 64 * len(SOUND)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 4 * 2**20 < 64 * len(SOUND)

    def test_a_proxy_of_the_environment_is_not_used(self, site, get, monkeypatch):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert get(site.answer("/", SOUND)).size_bytes == len(SOUND)


@pytest.mark.parametrize(
    ("disposition", "path", "name"),
    [
        ("", "/a/b.wav", "b.wav"),
        ("", "/a/b%2Fc.wav", "c.wav"),
        ("", "/a/", "a"),
        ("", "/", ""),
        ("inline", "/b.wav", "b.wav"),
        ('attachment; filename="x y.wav"', "/b.wav", "x y.wav"),
        ("attachment; filename=x.wav", "/b.wav", "x.wav"),
        ("attachment; filename=plain.wav; filename*=UTF-8''%c3%a4.wav", "/b.wav", "ä.wav"),
        ("attachment; filename*=nonsense''%c3%a4.wav", "/b.wav", "Ã¤.wav"),
        ('attachment; filename="../../etc/passwd"', "/b.wav", "passwd"),
        ('attachment; filename="C:\\\\evil\\\\x.wav"', "/b.wav", "x.wav"),
        ("attachment; filename*=UTF-8''a%0d%0a%1b%5b31m%00b.wav", "/b.wav", "a[31mb.wav"),
        ('attachment; filename=""', "/b.wav", "b.wav"),
        ('attachment; filename="' + "n" * 300 + '"', "/b.wav", "n" * 255),
        ("attachment; filename*=;;;=", "/b.wav", "b.wav"),
        ("attachment; filename*=idna''abc", "/b.wav", "b.wav"),
        ("attachment; filename*=undefined''abc", "/b.wav", "b.wav"),
        (f"attachment; filename*{'9' * 5_000}=x", "/b.wav", "b.wav"),
    ],
)
def test_what_it_is_called(disposition, path, name, site, get):
    headers = {"Content-Disposition": disposition} if disposition else {}
    assert get(site.answer(path, SOUND, headers=headers)).filename == name


def test_a_name_in_raw_utf_8(site, get):
    head = 'HTTP/1.0 200 OK\r\nContent-Disposition: attachment; filename="привет.wav"\r\n\r\n'.encode()
    assert get(site.raw("/", head, SOUND)).filename == "привет.wav"


class TestRedirects:
    def test_as_many_as_are_followed(self, site, get):
        for hop in range(MAX_REDIRECTS):
            site.redirect(f"/{hop}/first.wav", f"/{hop + 1}/first.wav", (301, 302, 303, 307, 308)[hop])
        site.answer(f"/{MAX_REDIRECTS}/first.wav", SOUND)
        assert get(site.url("/0/first.wav")) == FetchedFile(len(SOUND), "first.wav")
        assert len(site.asked) == MAX_REDIRECTS + 1

    def test_one_too_many(self, site, get):
        url = site.redirect("/loop", "/loop")
        with pytest.raises(UrlUnusable, match="more than 5 times"):
            get(url)
        assert len(site.asked) == MAX_REDIRECTS + 1

    @pytest.mark.parametrize(
        "location",
        [
            "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "http://10.0.0.1/", "http://169.254.169.254/latest/",
            "//[::1]/", "http://user@127.0.0.1/", "http://2852039166/", "http://[::ffff:10.0.0.1]/", "http://0x0a.1/",
        ],
    )  # fmt: skip
    def test_to_where_none_may_lead(self, location, site, get):
        with pytest.raises(UrlRefused):
            get(site.redirect("/", location))
        assert len(site.asked) == 1

    def test_a_name_that_means_something_else_by_then(self, site, get):
        answers = [("127.0.0.1",), ("10.0.0.1",)]
        site.redirect("/", "/again")
        with pytest.raises(UrlRefused):
            get(site.url(host="rebinding.example"), resolve=lambda *_: answers.pop(0))
        assert len(site.asked) == 1
        assert not answers

    def test_without_a_place_to_go_to(self, site, get):
        with pytest.raises(UrlUnusable, match="302"):
            get(site.answer("/", SOUND, status=302))

    def test_the_time_is_that_of_all_together(self, site, get):
        """As many hops as are followed would take half as long again, none of them for long."""
        url = site.raw("/", b"HTTP/1.0 302 Found\r\n", b"Location: /\r\n\r\n", every_s=0.3)
        with pytest.raises(UrlUnreachable, match="longer than 1 s"):
            get(url, timeout_s=1.0)


class TestWhatCannotBeUsed:
    @pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 404, 410, 451])
    def test_the_server_will_not_give_it(self, status, site, get):
        with pytest.raises(UrlUnusable, match=f"answered {status}" if status != 204 else "empty"):
            get(site.answer("/", b"" if status in (204, 304) else SOUND, status=status))

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
    def test_the_server_may_give_it_later(self, status, site, get):
        with pytest.raises(UrlUnreachable, match=f"answered {status}"):
            get(site.answer("/", SOUND, status=status))

    def test_nothing(self, site, get):
        with pytest.raises(UrlUnusable, match="empty"):
            get(site.answer("/", b""))

    @pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
    def test_compressed_though_asked_not_to(self, encoding, site, get):
        with pytest.raises(UrlUnusable, match=encoding):
            get(site.answer("/", SOUND, headers={"Content-Encoding": encoding}))

    def test_compressed_in_the_transfer(self, site, get):
        with pytest.raises(UrlUnreachable):
            get(site.raw("/", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", SOUND))

    def test_identity_is_no_compression(self, site, get):
        assert get(site.answer("/", SOUND, headers={"Content-Encoding": "identity"})).size_bytes == len(SOUND)

    @pytest.mark.parametrize("size", [str(2**20 + 1), "9" * 19])
    def test_too_large_by_its_own_word(self, size, site, get):
        """Refused before it is read: of this one nothing comes at all."""
        with pytest.raises(UploadTooLarge, match="larger than 1 MB"):
            get(site.raw("/", b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % size.encode(), hang=True))

    @pytest.mark.parametrize("head", [b"", b"Transfer-Encoding: chunked\r\n"])
    def test_without_an_end(self, head, site, get):
        piece = b"%x\r\n%b\r\n" % (len(SOUND), SOUND)
        url = site.raw("/", b"HTTP/1.1 200 OK\r\n%b\r\n" % head, piece, forever=True)
        with pytest.raises(UploadTooLarge):
            get(url)
        assert site.written_bytes < 64 * 2**20

    def test_a_head_without_an_end(self, site, get):
        with pytest.raises(UrlUnreachable):
            get(site.raw("/", b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 1_000 + b"\r\n", forever=True))

    @pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
    def test_news_without_end_fill_the_head(self, status, site, get):
        url = site.raw("/", b"HTTP/1.1 " + status + b"\r\n\r\n", forever=True)
        with pytest.raises(UrlUnusable, match="more than 256 kB before the recording"):
            get(url)
        assert site.written_bytes < 16 * 2**20

    def test_redirects_do_not_use_up_the_body(self, site, get):
        site.answer("/a", SOUND)
        assert get(site.redirect("/", "/a")).size_bytes == len(SOUND)

    def test_a_body_in_chunks_of_a_byte(self, site, get):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        with pytest.raises(UrlUnusable, match=r"in pieces of 1 bytes"):
            get(site.raw("/", head, b"1\r\nx\r\n" * 1_000, forever=True))

    def test_a_small_body_in_chunks_of_a_byte_is_fine(self, site, get, target):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (
            get(site.raw("/", head, b"1\r\nx\r\n" * (JUDGED_PIECES - 1), b"0\r\n\r\n")).size_bytes == JUDGED_PIECES - 1
        )
        assert target.read_bytes() == b"x" * (JUDGED_PIECES - 1)

    def test_it_breaks_off(self, site, get):
        with pytest.raises(UrlUnreachable, match="closed the connection"):
            get(site.raw("/", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", SOUND))

    @pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH_9.6\r\n", b"-ERR unknown command\r\n", b"", b"\0" * 4_096])
    def test_what_answers_speaks_something_else(self, head, site, get):
        with pytest.raises(UrlUnreachable):
            get(site.raw("/", head))

    @pytest.mark.parametrize("head", [b"HTTX\x1b" + b"a" * 90_000, b"HTTP/1.1 200 OK\r\n: " + b"a" * 90_000])
    def test_what_it_says_is_not_repeated_at_length(self, head, site, get):
        with pytest.raises(UrlUnreachable) as caught:
            get(site.raw("/", head + b"\r\n\r\n"))
        assert len(str(caught.value)) < 400

    def test_it_changes_the_protocol(self, site, get):
        with pytest.raises(UrlUnreachable, match="does not speak HTTP"):
            get(site.raw("/", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", SOUND))

    def test_nobody_is_there(self, get):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(UrlUnreachable, match=r"'127\.0\.0\.1' cannot be reached"):
            get(f"http://127.0.0.1:{port}/secret?token=t")

    def test_what_is_no_url(self, get):
        with pytest.raises(InvalidOption):
            get("file:///etc/passwd")

    def test_no_secret_of_the_url_is_in_the_words(self, site, get):
        with pytest.raises(UrlUnusable) as refused:
            get(site.url("/secret-path?token=t0ken"))
        assert "secret-path" not in str(refused.value)
        assert "t0ken" not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_without_leave_this_machine_is_not_asked(host, site, get):
    site.answer("/", SOUND)
    with pytest.raises(UrlRefused):
        get(site.url(host=host), networks=())
    assert not site.asked


class TestTime:
    def test_silence(self, site, get):
        with pytest.raises(UrlUnreachable, match=r"did not respond for 0\.2 s"):
            get(site.raw("/", hang=True), idle_timeout_s=0.2)

    def test_silence_in_the_middle(self, site, get):
        with pytest.raises(UrlUnreachable, match=r"did not respond for 0\.2 s"):
            get(site.raw("/", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nRIFF", hang=True), idle_timeout_s=0.2)

    def test_drop_by_drop(self, site, get):
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", b"x", every_s=0.02, forever=True)
        with pytest.raises(UrlUnreachable, match=r"longer than 0\.4 s"):
            get(url, timeout_s=0.4)

    def test_slower_than_any_speech(self, site, get):
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", b"x", every_s=0.02, forever=True)
        with pytest.raises(UrlUnreachable, match=r"too slow"):
            get(url, rate_window_s=0.3)

    def test_fast_enough_for_speech(self, site, get):
        pieces = (b"x" * 1_000,) * 10
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", *pieces, every_s=0.1)
        assert get(url, rate_window_s=0.2).size_bytes == 10_000

    def test_a_head_drop_by_drop(self, site, get):
        url = site.raw("/", b"HTTP/1.0 200 OK\r\n", b"x", every_s=0.02, forever=True)
        with pytest.raises(UrlUnreachable, match=r"longer than 0\.4 s"):
            get(url, timeout_s=0.4)

    def test_news_without_end_are_no_answer(self, site, get):
        url = site.raw("/", b"HTTP/1.1 103 Early Hints\r\n\r\n", every_s=0.02, forever=True)
        with pytest.raises(UrlUnreachable, match=r"longer than 0\.4 s"):
            get(url, timeout_s=0.4)


@pytest.mark.slow
class TestCallingOff:
    def test_before_the_first_byte_is_read(self, site, get):
        def stop(done_bytes, total_bytes):
            assert (done_bytes, total_bytes) == (0, len(SOUND))
            raise Cancelled("enough")

        with pytest.raises(Cancelled):
            get(site.answer("/", SOUND), progress=stop)

    @pytest.mark.parametrize(
        "pieces", [(), (b"HTTP/1.1 200 OK\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nRIFF",)]
    )
    def test_while_nothing_comes(self, pieces, site, get):
        told = []

        def stop(*it):
            told.append(it)
            if len(told) > 1:
                raise Cancelled("enough")

        with pytest.raises(Cancelled):
            get(site.raw("/", *pieces, hang=True), progress=stop, timeout_s=60.0, idle_timeout_s=60.0)

    def test_while_much_comes(self, site, get):
        def stop(done_bytes, _):
            if done_bytes:
                raise Cancelled("enough")

        url = site.raw("/", b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 1_000, every_s=0.02, forever=True)
        with pytest.raises(Cancelled):
            get(url, progress=stop, timeout_s=60.0)


def test_a_full_disk(site, get):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    url = site.answer("/", SOUND * 4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(SOUND), hard))
    try:
        with pytest.raises(StorageFull, match="ran full"):
            get(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_is_not_there(site, loopback, tmp_path):
    with pytest.raises(FileNotFoundError):
        fetch(site.answer("/", SOUND), tmp_path / "no" / "x", limit_bytes=2**20, timeout_s=9, networks=loopback)
