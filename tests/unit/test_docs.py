from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import documents
from support.documents import DocumentError, differences

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(path for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))
START_S = 120


def fenced(language: str, text: str, directive: str = "") -> str:
    return f"{directive}\n```{language}\n{text}\n```\n"


class TestRunner:
    """The runner itself: a wrong block must fail."""

    def test_a_block_that_works_is_run_in_the_folder(self, tmp_path: Path) -> None:
        document = fenced("sh", "echo here > made.txt", "<!-- run -->") + fenced("sh", "cat made.txt", "<!-- run -->")
        assert documents.run(document, tmp_path) == 2
        assert (tmp_path / "made.txt").read_text() == "here\n"

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("sh", "true\nfalse\ntrue"),
            ("sh", "echo $nothing_of_that_name"),
            ("sh", "no-such-command-anywhere"),
            ("python", "raise SystemExit(3)"),
            ("console", "$ echo one\ntwo"),
            ("console", "$ true\n$ echo one\none\n$ false"),
        ],
    )
    def test_a_wrong_block_fails_and_is_named(self, language: str, text: str, tmp_path: Path) -> None:
        with pytest.raises(DocumentError, match="line 3: "):
            documents.run("\n" + fenced(language, text, "<!-- run -->"), tmp_path)

    @pytest.mark.parametrize(
        ("language", "answer"),
        [("json", '{"a": 2}'), ("json", '{"a": 1, "b": 2}'), ("json", '[{"a": 1}]'), ("text", '{"a": 2}')],
    )
    def test_a_wrong_answer_fails(self, language: str, answer: str, tmp_path: Path) -> None:
        document = fenced("sh", """echo '{"a": 1}'""", "<!-- run -->") + fenced(language, answer, "<!-- answer -->")
        with pytest.raises(DocumentError, match="line 6: "):
            documents.run(document, tmp_path)

    def test_a_right_answer_passes_whatever_its_layout(self, tmp_path: Path) -> None:
        document = fenced("sh", """echo '{"b": [1.01, 2], "a": "x y"}'""", "<!-- run -->")
        document += fenced("json", '{"a": "x ...",\n "b": [1.0, "..."]}', "<!-- answer -->")
        assert documents.run(document, tmp_path) == 1

    def test_an_answer_that_is_no_json_fails(self, tmp_path: Path) -> None:
        document = fenced("sh", "echo oops", "<!-- run -->") + fenced("json", "{}", "<!-- answer -->")
        with pytest.raises(DocumentError, match="oops"):
            documents.run(document, tmp_path)

    def test_console_shows_what_comes_out(self, tmp_path: Path) -> None:
        text = "$ printf 'one\\ntwo\\n'\none\n...\n$ echo \\\n> three\nthree\n$ echo unseen"
        assert documents.run(fenced("console", text, "<!-- run -->"), tmp_path) == 1

    def test_the_address_of_the_service_is_put_in(self, tmp_path: Path) -> None:
        document = fenced("sh", f"echo {documents.SERVICE}/status > address", "<!-- run -->")
        assert documents.blocks(document)[0].needs_service
        documents.run(document, tmp_path, service="http://127.0.0.1:81")
        assert (tmp_path / "address").read_text() == "http://127.0.0.1:81/status\n"

    def test_a_block_that_is_not_run_is_not_run(self, tmp_path: Path) -> None:
        document = fenced("sh", "touch made", "<!-- not run: it would -->")
        assert documents.faults(document) == ()
        assert documents.run(document, tmp_path) == 0
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "document",
        [
            fenced("sh", "true"),
            fenced("json", "{}"),
            fenced("sh", "true", "<!-- not run: -->"),
            fenced("sh", "true", "<!-- run -->\nwords between"),
            fenced("json", "{}", "<!-- run -->"),
            fenced("json", "{}", "<!-- answer -->"),
        ],
    )
    def test_a_block_must_say_what_it_is(self, document: str) -> None:
        assert len(documents.faults(document)) == 1

    def test_a_block_inside_a_list_is_seen_and_plain_text_need_say_nothing(self) -> None:
        document = "- item\n\n  <!-- run -->\n  ```sh\n  echo x\n  ```\n\n" + fenced("text", "x")
        assert [(b.language, b.text, b.kind) for b in documents.blocks(document)] == [
            ("sh", "echo x\n", "run"),
            ("text", "x\n", ""),
        ]
        assert documents.faults(document) == ()

    def test_a_block_that_is_never_closed_is_named(self) -> None:
        with pytest.raises(DocumentError, match="line 2"):
            documents.blocks("\n```sh\ntrue\n")

    @pytest.mark.parametrize(
        ("shown", "real", "where"),
        [
            ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "$.a.b[1]"),
            ([1, "..."], [], "$"),
            ([1], [1, 2], "$"),
            (True, 1, "$"),
            (None, 0, "$"),
            (1.0, 1.2, "$"),
            ("a", "b", "$"),
            ({"a": 1}, {"a": 1, "b": 1}, "$.b"),
        ],
    )
    def test_differences_say_where(self, shown: object, real: object, where: str) -> None:
        (difference,) = differences(shown, real)
        assert difference.startswith(f"{where} ")


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the real service, ready."""
    folder = tmp_path_factory.mktemp("service")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "console.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "diarist.cli", "serve"],
            cwd=folder, env={**os.environ, "FLASK_PORT": str(port)}, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(START_S * 10):
        try:
            direct.open(f"{address}/health/ready", timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # 503: not ready yet
        except OSError:
            pass
        else:
            return
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the service ended with {process.returncode}:\n{log.read_text()}")
    pytest.fail(f"the service is not ready after {START_S} s:\n{log.read_text()}")


def test_every_block_of_the_readme_says_whether_it_is_run() -> None:
    document = README.read_text("utf-8")
    assert documents.faults(document) == ()
    assert any(block.kind == "run" for block in documents.blocks(document)), "README.md shows nothing that is run"


@pytest.mark.models
def test_the_readme_tells_the_truth(
    request: pytest.FixtureRequest, tmp_path: Path, sample_recording: Path, model_store: object
) -> None:
    document = README.read_text("utf-8")
    shutil.copy(sample_recording, tmp_path / "meeting.wav")
    address = documents.SERVICE
    if any(block.needs_service for block in documents.blocks(document)):
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed, and README.md shows it")
        address = request.getfixturevalue("service")
    documents.run(document, tmp_path, address)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} points to {target}"
