"""Where a model's file is found, and what is said where it is not: with a hub of our own on the loopback."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from diarist.engines.nemo import download, published_models
from diarist.engines.nemo.download import Reference, find
from diarist.errors import ModelUnavailable
from diarist.settings import Settings

NAME = "nvidia/parakeet-tdt-0.6b-v3"
FILE = "parakeet-tdt-0.6b-v3.nemo"
CONTENT = b"a model " * 1_000
REVISION = "c" * 40


class Hub:
    """A model hub, and a catalog: answers what it is told to, and counts what it is asked."""

    def __init__(self) -> None:
        self.status = 200
        self.error_code = ""
        self.files = [FILE, "README.md"]
        self.silent = False
        self.cut_off = False
        self.asked: list[str] = []
        self._over = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.asked.append(self.path)
                if hub.silent:
                    hub._over.wait()
                    self.close_connection = True
                elif hub.status != 200:
                    self._answer(b"", hub.status, {"X-Error-Code": hub.error_code} if hub.error_code else {})
                elif self.path.startswith("/api/models/"):
                    told = {"id": NAME, "sha": REVISION, "siblings": [{"rfilename": name} for name in hub.files]}
                    self._answer(json.dumps(told).encode(), 200, {"Content-Type": "application/json"})
                else:
                    etag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
                    self._answer(CONTENT, 200, {"ETag": etag, "X-Repo-Commit": REVISION})

            do_HEAD = do_GET  # noqa: N815

            def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[: len(content) // 2] if hub.cut_off else content)
                    self.close_connection = hub.cut_off

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # callers hang up on what never answers

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and the hub as the only one there is."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path / "nemo-cache"))
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(hub_timeout_s=1.0, model_dir=tmp_path / "models")


def snapshot(cache: Path, name: str, file: str, revision: str = REVISION, main: str | None = REVISION) -> Path:
    folder = cache / f"models--{name.replace('/', '--')}"
    path = folder / "snapshots" / revision / file
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(main)
    return path


def reference(text: str = NAME, named_by: str | None = "NEMO_ASR_MODEL") -> Reference:
    return Reference(text, "recognition", named_by)


def refused(settings: Settings, text: str = NAME) -> str:
    """What is said where a model cannot be had; it always names the model, the setting and the ways to provide it."""
    with pytest.raises(ModelUnavailable) as caught:
        find(reference(text), settings)
    words = str(caught.value)
    assert words.startswith(f"The model {text} (named by NEMO_ASR_MODEL) ")
    assert "three ways" in words
    for way in (
        "HF_HUB_OFFLINE",
        "as NEMO_ASR_MODEL",
        "MODEL_SOURCE_DIR",
        "HF_HOME" if "/" in text else "NEMO_CACHE_DIR",
    ):
        assert way in words
    return words


class TestOnThisMachine:
    @pytest.fixture(autouse=True)
    def _no_network(self, cache: Path, hub: Hub) -> Iterator[None]:
        yield
        assert hub.asked == []

    def test_a_path(self, tmp_path, settings):
        path = tmp_path / "mine.nemo"
        path.write_bytes(CONTENT)
        assert find(reference(str(path)), settings) == path

    def test_a_path_in_the_home_folder(self, tmp_path, settings, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "mine.nemo").write_bytes(CONTENT)
        assert find(reference("~/mine.nemo"), settings) == tmp_path / "mine.nemo"

    def test_a_path_of_nothing(self, tmp_path, settings):
        assert "no file exists at that path" in refused(settings, str(tmp_path / "mine.nemo"))

    def test_a_path_of_a_folder(self, tmp_path, settings):
        assert "is a folder" in refused(settings, str(tmp_path))

    def test_a_folder_of_the_same_name_is_no_model(self, cache, settings, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / NAME).mkdir(parents=True)
        path = snapshot(cache, NAME, FILE)
        assert find(reference(), settings) == path

    def test_a_name_that_none_can_have(self, settings):
        assert "neither a path" in refused(settings, "https://example.org/a b")

    @pytest.mark.parametrize("name", [NAME, "parakeet-tdt-0.6b-v3", "NVIDIA/Parakeet-TDT-0.6b-v3"])
    def test_the_cache_of_the_hub(self, cache, settings, name):
        path = snapshot(cache, NAME, FILE)
        assert find(reference(name), settings) == path

    def test_the_revision_that_main_was(self, cache, settings):
        snapshot(cache, NAME, FILE, "a" * 40, main=None)
        path = snapshot(cache, NAME, FILE, "b" * 40, main="b" * 40)
        snapshot(cache, NAME, FILE, "d" * 40, main=None)
        assert find(reference(), settings) == path

    def test_a_cache_filled_by_hand_without_refs(self, cache, settings):
        path = snapshot(cache, NAME, FILE, main=None)
        assert find(reference(), settings) == path

    def test_a_file_of_another_name_than_its_repository(self, cache, settings):
        path = snapshot(cache, "nvidia/stt_en_citrinet_1024_ls", "stt_en_citrinet_1024.nemo")
        assert find(reference("nvidia/stt_en_citrinet_1024_ls"), settings) == path

    def test_offline_the_cache_serves(self, cache, settings, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        path = snapshot(cache, NAME, FILE)
        assert find(reference(), settings) == path

    def test_offline_what_is_in_no_cache(self, settings, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "is not in any cache on this machine, and HF_HUB_OFFLINE does not allow" in refused(settings)

    def test_half_a_download_is_none(self, cache, settings, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        path = snapshot(cache, NAME, FILE)
        path.unlink()
        path.symlink_to("../../blobs/that-is-not-there")
        assert "not in any cache" in refused(settings)

    def test_the_folder_of_model_sources(self, tmp_path, cache):
        (tmp_path / FILE).write_bytes(CONTENT)
        assert find(reference(), Settings(model_source_dir=tmp_path)) == tmp_path / FILE


class TestFromTheHub:
    @pytest.fixture(autouse=True)
    def _hub(self, cache: Path) -> None:
        pass

    def test_is_downloaded_once(self, hub, settings):
        path = find(reference(), settings)
        assert path.read_bytes() == CONTENT
        published = published_models.find(NAME)
        assert published is not None
        about_the_model = [path for path in hub.asked if NAME in path]
        assert len(about_the_model) >= 2
        assert all(f"/{published.revision}" in path for path in about_the_model), "the newest one may be another model"
        asked = len(hub.asked)
        assert find(reference(), settings) == path
        assert len(hub.asked) == asked, "what is in the cache is used without a question"

    def test_a_file_of_another_name_than_its_repository(self, hub, settings):
        hub.files = ["stt_en_citrinet_1024.nemo", "README.md"]
        assert find(reference("nvidia/stt_en_citrinet_1024_ls"), settings).name == "stt_en_citrinet_1024.nemo"

    @pytest.mark.parametrize("files", [["README.md"], ["a.nemo", "b.nemo"]])
    def test_a_repository_without_the_file(self, hub, settings, files):
        hub.files = files
        assert "does not contain exactly one .nemo file" in refused(settings)

    @pytest.mark.parametrize(
        ("status", "code", "words"),
        [
            (404, "RepoNotFound", "is not on the hub or is not public: http://127.0.0.1:"),
            (401, "", "is not public: "),
            (403, "GatedRepo", "have accepted its terms"),
            (403, "", "returned 403"),
            (500, "", "could not be downloaded"),
            (429, "", "could not be downloaded"),
        ],
    )
    def test_a_hub_that_refuses(self, hub, settings, status, code, words):
        hub.status, hub.error_code = status, code
        assert words in refused(settings)

    def test_a_hub_that_is_not_there(self, settings, monkeypatch):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
            assert "cannot be reached" in refused(settings)

    def test_a_hub_that_never_answers(self, hub, settings):
        hub.silent = True
        assert "cannot be reached" in refused(settings)
        assert len(hub.asked) == 1, "no second try: each takes the whole time"

    def test_a_name_that_no_repository_can_have(self, settings):
        assert "a name that is not valid on the hub" in refused(settings, "nvidia/-x..y-")

    def test_a_full_disk(self, settings, monkeypatch):
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "/cache")

        monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
        assert "the disk is full (/cache)" in refused(settings)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_variables_of_the_hub(hub, tmp_path, offline):
    """What the hub's client reads from the environment when it is imported, which the tests above put in place."""
    code = (
        "from diarist.engines.nemo.download import Reference, find\n"
        "from diarist.errors import ModelUnavailable\n"
        "from diarist.settings import Settings\n"
        "try:\n"
        f"    print(find(Reference({NAME!r}, 'recognition'), Settings()))\n"
        "except ModelUnavailable as error:\n"
        "    print(error)\n"
    )
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": offline}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    if offline == "1":
        assert "HF_HUB_OFFLINE does not allow downloading it. There are three ways" in done.stdout
        assert f"copy the cache, here {tmp_path}/home/hub (HF_HOME)" in done.stdout
        assert hub.asked == []
    else:
        assert Path(done.stdout.strip()).read_bytes() == CONTENT
        assert done.stdout.startswith(f"{tmp_path}/home/hub/")


@pytest.mark.nemo
class TestFromTheCatalog:
    @pytest.fixture(autouse=True)
    def _catalog(self, cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        from nemo.collections.asr.models import EncDecCTCModelBPE
        from nemo.core.classes.common import PretrainedModelInfo

        info = PretrainedModelInfo(
            pretrained_model_name="stt_en_citrinet_512",
            aliases=["citrinet"],
            location=f"{hub.address}/models/stt-512.nemo",
            description="A model.",
        )
        monkeypatch.setattr(EncDecCTCModelBPE, "list_available_models", classmethod(lambda _cls: [info]))

    def test_is_downloaded_once_to_where_nemo_looks(self, tmp_path, hub, settings):
        path = find(reference("stt_en_citrinet_512"), settings)
        assert path.read_bytes() == CONTENT
        digest = hashlib.md5(f"{hub.address}/models/stt-512.nemoA model.".encode(), usedforsecurity=False).hexdigest()
        assert path == tmp_path / "nemo-cache" / "stt-512" / digest / "stt-512.nemo"
        assert find(reference("citrinet"), settings) == path
        assert len(hub.asked) == 1
        assert not list(path.parent.glob("*.partial"))

    def test_nemo_finds_it_there(self, hub, settings):
        from nemo.collections.asr.models import EncDecCTCModelBPE

        path = find(reference("stt_en_citrinet_512"), settings)
        found = EncDecCTCModelBPE.from_pretrained("stt_en_citrinet_512", return_model_file=True)
        assert Path(found) == path
        assert len(hub.asked) == 1

    def test_a_download_that_is_cut_off_leaves_nothing(self, tmp_path, hub, settings):
        hub.cut_off = True
        assert "could not be downloaded" in refused(settings, "stt_en_citrinet_512")
        assert [path.name for path in (tmp_path / "nemo-cache").rglob("*.nemo*") if path.suffix != ".lock"] == []
        hub.cut_off = False
        assert find(reference("stt_en_citrinet_512"), settings).read_bytes() == CONTENT

    @pytest.mark.parametrize(("status", "words"), [(404, "no longer exists"), (403, "is not public"), (500, "500")])
    def test_a_catalog_that_refuses(self, hub, settings, status, words):
        hub.status = status
        assert words in refused(settings, "stt_en_citrinet_512")

    def test_a_catalog_that_never_answers(self, hub, settings):
        hub.silent = True
        assert "cannot be reached" in refused(settings, "stt_en_citrinet_512")

    def test_offline(self, hub, settings, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE does not allow" in refused(settings, "stt_en_citrinet_512")
        assert hub.asked == []

    def test_a_full_disk(self, settings, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
        assert "the disk is full" in refused(settings, "stt_en_citrinet_512")

    def test_an_unknown_name_is_never_another_model(self, hub, settings):
        assert "the most similar name is stt_en_citrinet_512" in refused(settings, "stt_en_citrinet_511")
        assert "is not in NVIDIA's catalog." in refused(settings, "zzz")
        assert hub.asked == []

    @pytest.mark.parametrize("place", ["stt-512.nemo", "stt-512/by-hand/stt-512.nemo"])
    def test_a_cache_filled_by_hand(self, tmp_path, hub, settings, place):
        path = tmp_path / "nemo-cache" / place
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        assert find(reference("stt_en_citrinet_512"), settings) == path
        assert hub.asked == []

    @pytest.mark.parametrize("name", ["stt-512.nemo", "stt_en_citrinet_512.nemo"])
    def test_the_folder_of_model_sources(self, tmp_path, hub, name):
        (tmp_path / name).write_bytes(CONTENT)
        assert find(reference("stt_en_citrinet_512"), Settings(model_source_dir=tmp_path)) == tmp_path / name
        assert hub.asked == []


@pytest.mark.nemo
@pytest.mark.parametrize("folder", [None, "here"])
def test_the_cache_is_where_nemo_has_it(tmp_path, monkeypatch, folder):
    from nemo.utils.data_utils import resolve_cache_dir

    if folder:
        monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path / folder))
    else:
        monkeypatch.delenv("NEMO_CACHE_DIR", raising=False)
    assert download.nemo_cache() == resolve_cache_dir()


@pytest.mark.nemo
def test_models_of_the_catalog_are_in_it():
    from diarist.engines.nemo import published_models

    for model in published_models.PUBLISHED_MODELS:
        if "/" not in model.name:
            entry = download._catalog_entry(Reference(model.name, model.role), model.name)
            assert entry.url.endswith(".nemo")
