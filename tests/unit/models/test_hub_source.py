from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from diarist.errors import Cancelled, ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore
from diarist.models.catalog import Model, parse_catalog
from support.loopback_hub import Behavior, LoopbackHub, serving_hub
from support.loopback_site import until
from unit.models.conftest import Calls

Leftovers = Callable[[ModelStore], list[str]]

DEADLINE_S = 60
REPOSITORY = "some/voice-onnx"
CONTENT: Mapping[str, bytes] = {
    "encoder.onnx": random.Random(1).randbytes(2_000_000),
    "plda/plda.npz": random.Random(2).randbytes(500_000),
    "config.json": b'{"features_size": 128}',
}
SIZE_BYTES = sum(map(len, CONTENT.values()))

PULL = """
import os, signal, sys
from pathlib import Path
from diarist.models import ModelStore
from diarist.models.catalog import parse_catalog
store = ModelStore(Path(sys.argv[1]), models=parse_catalog(sys.argv[2]))
kill_at, events = int(sys.argv[3]), 0
def count(event, values):
    global events
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "socket.connect"):
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
import huggingface_hub.file_download
sys.addaudithook(count)
print(store.pull("voice-onnx"), events)
"""
"""Pulls the model, and kills itself at an event of the file system or the network, if it is not -1."""


def catalog_text() -> str:
    entry = f'[[model]]\nname = "voice-onnx"\nrole = "recognition"\nhub = "{REPOSITORY}"\nrevision = "0123"\n'
    entry += 'licence = "MIT"\nholder = "nobody"\norigin = "https://example.org/voice"\n'
    for name, content in CONTENT.items():
        digest = hashlib.sha256(content).hexdigest()
        entry += f'[[model.file]]\nname = "{name}"\nbytes = {len(content)}\nsha256 = "{digest}"\n'
    return entry


@pytest.fixture
def models() -> Mapping[str, Model]:
    return parse_catalog(catalog_text())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub with the files; the client in this process and in others asks it."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving_hub({REPOSITORY: CONTENT}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def pull_process(store: ModelStore, kill_at: int = -1, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(store.root), catalog_text(), str(kill_at)],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a pull and return what it printed on standard error."""
    _, errors = process.communicate(timeout=DEADLINE_S)
    return errors


def assert_whole(store: ModelStore) -> None:
    assert store.verify("voice-onnx") == store.locate("voice-onnx") == store.root / "voice-onnx"
    for name, content in CONTENT.items():
        assert (store.root / "voice-onnx" / name).read_bytes() == content


def partial_sizes(store: ModelStore) -> Mapping[str, int]:
    folder = store.root / ".partial" / "voice-onnx"
    return {path.name.rpartition(".")[0]: path.stat().st_size for path in folder.glob("*")}


def test_a_model_of_the_hub_with_nested_files(store: ModelStore, hub: LoopbackHub, calls: Calls) -> None:
    assert store.pull("voice-onnx", calls) == store.root / "voice-onnx"
    assert_whole(store)
    assert hub.sent_bytes == SIZE_BYTES
    assert [request.path for request in hub.requests] == [f"/{REPOSITORY}/resolve/0123/{name}" for name in CONTENT]
    done = [done_bytes for _, done_bytes, _ in calls.seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, SIZE_BYTES)
    assert len(done) > 8, "there is no progress within a file"
    assert {total for _, _, total in calls.seen} == {SIZE_BYTES}


def test_a_pull_leaves_only_the_files(store: ModelStore, hub: LoopbackHub, leftovers: Leftovers) -> None:
    store.pull("voice-onnx")
    assert [name for name in leftovers(store) if not name.endswith(".hashes.json")] == []
    assert not any((store.root / ".partial").iterdir())
    files = sum(path.stat().st_size for path in store.root.rglob("*") if not path.name.startswith("."))
    assert store.models["voice-onnx"].disk_bytes == SIZE_BYTES
    assert files - SIZE_BYTES < 100_000, "only folders may be added"


class TestInterruption:
    @pytest.mark.parametrize(
        ("name", "pause_at"), [("encoder.onnx", 0), ("encoder.onnx", 1_400_000), ("plda/plda.npz", 499_999)]
    )
    def test_a_pull_that_is_killed_is_resumed(
        self, store: ModelStore, hub: LoopbackHub, name: str, pause_at: int
    ) -> None:
        hub.behaviors[name] = Behavior(pause_at=pause_at)
        with pull_process(store) as process:
            assert hub.paused.wait(DEADLINE_S)
            self.wait_for_partial(store, name, pause_at)
            process.send_signal(signal.SIGKILL)
        assert store.state("voice-onnx") == "missing"
        hub.behaviors.clear()
        hub.requests.clear()
        hub.sent_bytes = 0
        store.pull("voice-onnx")
        assert_whole(store)
        before = pause_at + (len(CONTENT["encoder.onnx"]) if name != "encoder.onnx" else 0)
        assert hub.sent_bytes == SIZE_BYTES - before
        assert hub.requests[0].headers.get("range") == (f"bytes={pause_at}-" if pause_at else None)

    def wait_for_partial(self, store: ModelStore, name: str, size_bytes: int) -> None:
        until(lambda: not size_bytes or partial_sizes(store).get(name.replace("/", "-")) == size_bytes, DEADLINE_S)

    @pytest.mark.slow
    def test_a_pull_may_be_killed_at_any_moment(
        self, tmp_path: Path, models: Mapping[str, Model], hub: LoopbackHub
    ) -> None:
        whole = pull_process(ModelStore(tmp_path / "whole", models=models))
        out, errors = whole.communicate(timeout=DEADLINE_S)
        assert whole.returncode == 0, errors
        events = int(out.split()[-1])
        assert events > 20
        for kill_at in range(1, events + 1, max(1, events // 15)):
            store = ModelStore(tmp_path / str(kill_at), models=models)
            process = pull_process(store, kill_at)
            finish(process)
            assert process.returncode == -signal.SIGKILL
            store.pull("voice-onnx")
            assert_whole(store)
            assert [path.name for path in store.root.glob(".pull-*")] == []
            assert not any((store.root / ".partial").iterdir())

    def test_a_pull_that_is_canceled_is_resumed(self, store: ModelStore, hub: LoopbackHub) -> None:
        def stop(_model: str, done_bytes: int, _total_bytes: int) -> None:
            if done_bytes > 1_000_000:
                raise Cancelled("enough")

        with pytest.raises(Cancelled, match="enough"):
            store.pull("voice-onnx", stop)
        kept_bytes = partial_sizes(store)["encoder.onnx"]
        assert kept_bytes > 1_000_000
        hub.sent_bytes = 0
        store.pull("voice-onnx")
        assert_whole(store)
        assert hub.sent_bytes == SIZE_BYTES - kept_bytes

    @pytest.mark.slow
    def test_a_connection_that_breaks_is_made_again(
        self, store: ModelStore, hub: LoopbackHub, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(break_at=[700_000, 1_500_000])
        store.pull("voice-onnx")
        assert_whole(store)
        assert hub.sent_bytes == SIZE_BYTES
        assert sum("is resumed" in record.getMessage() for record in caplog.records) == 2

    @pytest.mark.slow
    def test_a_hub_that_sends_only_whole_files(self, store: ModelStore, hub: LoopbackHub) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(break_at=[700_000], ranges=False)
        store.pull("voice-onnx")
        assert_whole(store)

    def test_a_partial_file_with_other_bytes_is_downloaded_again(self, store: ModelStore, hub: LoopbackHub) -> None:
        path = self.partial_file(store)
        path.write_bytes(bytes(1_000_000))
        store.pull("voice-onnx")
        assert_whole(store)
        assert hub.sent_bytes == SIZE_BYTES + 1_000_000

    def test_a_partial_file_that_is_complete_is_not_downloaded(self, store: ModelStore, hub: LoopbackHub) -> None:
        path = self.partial_file(store)
        path.write_bytes(CONTENT["encoder.onnx"])
        store.pull("voice-onnx")
        assert_whole(store)
        assert hub.sent_bytes == SIZE_BYTES - len(CONTENT["encoder.onnx"])

    def test_a_partial_file_that_is_too_long_is_downloaded_again(self, store: ModelStore, hub: LoopbackHub) -> None:
        self.partial_file(store).write_bytes(bytes(3_000_000))
        store.pull("voice-onnx")
        assert_whole(store)

    def test_partial_files_are_not_kept_for_ever(self, store: ModelStore, hub: LoopbackHub) -> None:
        old, recent = self.partial_file(store, "other"), self.partial_file(store, "third")
        for path, days in ((old, 31), (recent, 29)):
            path.write_bytes(b"x")
            os.utime(path, (time.time() - days * 86_400,) * 2)
        store.pull("voice-onnx")
        assert not old.exists()
        assert recent.exists()

    def partial_file(self, store: ModelStore, model: str = "voice-onnx") -> Path:
        digest = hashlib.sha256(CONTENT["encoder.onnx"]).hexdigest()
        path = store.root / ".partial" / model / f"encoder.onnx.{digest[:16]}"
        path.parent.mkdir(parents=True)
        return path


class TestRefused:
    @pytest.mark.parametrize("length", [True, False], ids=["with length", "without length"])
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "unexpected SHA-256"),
            (lambda content: content[:-1], "1999999 bytes instead of|1 bytes shorter"),
            (lambda content: content + b"x", "2000001 bytes instead of|longer"),
            (lambda _: b"<html>Log in</html>", "19 bytes instead of|shorter"),
        ],
        ids=["wrong byte", "short", "long", "page"],
    )
    def test_another_file(
        self, store: ModelStore, hub: LoopbackHub, change: Callable[[bytes], bytes], words: str, length: bool
    ) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(content=change(CONTENT["encoder.onnx"]), length=length)
        with pytest.raises(ModelCorrupt, match=rf"rejected, encoder\.onnx .*({words})") as caught:
            store.pull("voice-onnx")
        assert "pip" not in str(caught.value)
        assert "wheel" not in str(caught.value)
        assert not (store.root / "voice-onnx" / "encoder.onnx").exists()
        assert partial_sizes(store) == {}
        assert hub.sent_bytes <= len(CONTENT["encoder.onnx"]) + 2**18

    def test_a_shorter_file_after_an_interruption(self, store: ModelStore, hub: LoopbackHub) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(content=CONTENT["encoder.onnx"][:500_000])
        TestInterruption().partial_file(store).write_bytes(CONTENT["encoder.onnx"][:600_000])
        with pytest.raises(ModelCorrupt, match="has 500000 bytes instead of the expected 2000000"):
            store.pull("voice-onnx")

    def test_a_file_that_the_hub_does_not_have(self, store: ModelStore, hub: LoopbackHub) -> None:
        hub.repositories = {REPOSITORY: {name: CONTENT[name] for name in ("encoder.onnx", "config.json")}}
        with pytest.raises(ModelUnavailable, match=r"has no file plda/plda\.npz in revision 0123"):
            store.pull("voice-onnx")
        assert (store.root / "voice-onnx" / "encoder.onnx").is_file(), "what is complete is kept"

    def test_a_repository_that_does_not_exist(self, store: ModelStore, hub: LoopbackHub) -> None:
        hub.repositories = {}
        with pytest.raises(ModelUnavailable, match=f"{hub.url}/{REPOSITORY} was not found"):
            store.pull("voice-onnx")

    @pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
    def test_a_gated_model(self, store: ModelStore, hub: LoopbackHub, status: int, code: str) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(status=status, error_code=code)
        words = rf"status {status}\): accept the conditions at {hub.url}/{REPOSITORY}.*set HF_TOKEN"
        with pytest.raises(ModelUnavailable, match=words):
            store.pull("voice-onnx")

    def test_the_token_is_sent(self, store: ModelStore, hub: LoopbackHub) -> None:
        process = pull_process(store, HF_TOKEN="hf_secret")
        assert finish(process) == ""
        assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_secret"}

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_hub_that_fails(self, store: ModelStore, hub: LoopbackHub, status: int) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(status=status)
        with pytest.raises(ModelUnavailable, match=f"answered with the status {status} for encoder.onnx: try again"):
            store.pull("voice-onnx")

    def test_a_proxy_that_asks_for_a_password(self, store: ModelStore, hub: LoopbackHub) -> None:
        hub.behaviors["encoder.onnx"] = Behavior(status=407)
        with pytest.raises(ModelUnavailable, match=r"the proxy refuses the connection \(status 407\).*HTTPS_PROXY"):
            store.pull("voice-onnx")

    def test_a_file_too_many(self, store: ModelStore, hub: LoopbackHub) -> None:
        folder = store.pull("voice-onnx")
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "plda" / ".hidden").mkdir()
        (folder / "plda" / ".hidden" / "file").write_bytes(b"x")
        assert_whole(store)
        for name in ("tokenizer.json", "plda/other.npz", "more/file"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"x")
            for look in (store.locate, store.verify, store.pull):
                with pytest.raises(
                    ModelCorrupt, match=rf"{re.escape(name)} is not a file of model voice-onnx\. Remove"
                ):
                    look("voice-onnx")
            (folder / name).unlink()
        assert_whole(store)


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class TestUnreachable:
    def test_the_client_is_offline(self, store: ModelStore, hub: LoopbackHub) -> None:
        assert "it was not asked, because HF_HUB_OFFLINE is set" in finish(pull_process(store, HF_HUB_OFFLINE="1"))
        assert hub.requests == []

    def test_offline(self, store: ModelStore, hub: LoopbackHub) -> None:
        with pytest.raises(ModelUnavailable, match="not on this machine, and the network may not be used") as caught:
            store.pull("voice-onnx", offline=True)
        assert "put its files as voice-onnx/encoder.onnx" in str(caught.value)
        assert hub.requests == []

    def test_a_mirror_that_is_down(self, store: ModelStore, hub: LoopbackHub, index: Path) -> None:
        mirror = f"http://127.0.0.1:{unused_port()}"
        errors = finish(pull_process(store, HF_ENDPOINT=mirror, NO_PROXY="*", no_proxy="*"))
        assert f"{mirror} cannot be reached" in errors
        assert "check HF_ENDPOINT. " in errors
        assert "HTTPS_PROXY" not in errors

    def test_a_proxy_that_is_down(self, store: ModelStore, hub: LoopbackHub, index: Path) -> None:
        proxy = f"http://127.0.0.1:{unused_port()}"
        errors = finish(pull_process(store, HTTP_PROXY=proxy, http_proxy=proxy, NO_PROXY="", no_proxy=""))
        assert "the proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)" in errors
        assert hub.requests == []

    def test_a_proxy_is_used(self, store: ModelStore, hub: LoopbackHub, index: Path) -> None:
        environment = {"HTTP_PROXY": hub.url, "http_proxy": hub.url, "NO_PROXY": "", "no_proxy": ""}
        errors = finish(pull_process(store, HF_ENDPOINT="http://hub.invalid", **environment))
        assert "http://hub.invalid/some/voice-onnx was not found" in errors  # the hub does not act as a proxy
        assert hub.requests[0].path.startswith("http://hub.invalid/some/voice-onnx/resolve/")


class TestDiskSpace:
    def pull_with(self, store: ModelStore, free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("diarist.models.store.shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes))
        store.pull("voice-onnx")

    def test_exactly_the_size_of_the_files_is_needed(
        self, store: ModelStore, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ModelUnavailable, match=r"too little disk space .*: 3 MB are needed, 2 MB are free"):
            self.pull_with(store, SIZE_BYTES - 1, monkeypatch)
        assert hub.requests == []
        self.pull_with(store, SIZE_BYTES, monkeypatch)
        assert_whole(store)

    def test_what_is_there_is_not_needed_again(
        self, store: ModelStore, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        TestInterruption().partial_file(store).write_bytes(CONTENT["encoder.onnx"][:1_000_000])
        with pytest.raises(ModelUnavailable, match="too little disk space"):
            self.pull_with(store, SIZE_BYTES - 1_000_001, monkeypatch)
        self.pull_with(store, SIZE_BYTES - 1_000_000, monkeypatch)
        assert_whole(store)


def test_a_folder_provides_nested_files_without_the_network(
    tmp_path: Path, models: Mapping[str, Model], index: Path, hub: LoopbackHub
) -> None:
    for name, content in CONTENT.items():
        path = tmp_path / "source" / "voice-onnx" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    store = ModelStore(tmp_path / "store", tmp_path / "source", models=models)
    store.pull("voice-onnx", offline=True)
    assert_whole(store)
    assert hub.requests == []


def test_a_folder_and_the_hub_complete_each_other(
    tmp_path: Path, models: Mapping[str, Model], index: Path, hub: LoopbackHub
) -> None:
    path = tmp_path / "source" / "voice-onnx" / "encoder.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT["encoder.onnx"])
    store = ModelStore(tmp_path / "store", tmp_path / "source", models=models)
    store.pull("voice-onnx")
    assert_whole(store)
    assert hub.sent_bytes == SIZE_BYTES - len(CONTENT["encoder.onnx"])


def test_the_storage_protocol_of_the_hub_is_not_used(store: ModelStore, hub: LoopbackHub) -> None:
    code = f"{PULL}\nprint('hf_xet' in sys.modules)"
    command = [sys.executable, "-c", code, str(store.root), catalog_text(), "-1"]
    assert subprocess.check_output(command, text=True).splitlines()[-1] == "False"


CLI = """
import sys
from diarist.models import user_catalog
from diarist.models.catalog import parse_catalog
user_catalog.load_catalog = lambda: parse_catalog(sys.argv[1])
from diarist.cli import main
main(["models", "pull", "voice-onnx"])
"""


def test_the_command_is_killed_and_resumed(store: ModelStore, hub: LoopbackHub) -> None:
    environment = {**os.environ, "MODEL_DIR": str(store.root)}
    command = [sys.executable, "-c", CLI, catalog_text()]
    hub.behaviors["encoder.onnx"] = Behavior(pause_at=1_500_000)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "voice-onnx: fetching 2.5 MB" in process.stderr.readline()
        assert hub.paused.wait(DEADLINE_S)
        TestInterruption().wait_for_partial(store, "encoder.onnx", 1_500_000)
        process.kill()
    hub.behaviors.clear()
    hub.sent_bytes = 0
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert result.stderr.startswith("voice-onnx: fetching 2.5 MB, 1.5 MB are there already\n")
    assert result.stdout == f"voice-onnx: ready in {store.root / 'voice-onnx'}\n"
    assert hub.sent_bytes == SIZE_BYTES - 1_500_000
    assert_whole(store)
