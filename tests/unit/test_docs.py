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
from typing import Any

import pytest
import yaml

from support import documents
from support.documents import DocumentError, differences

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
REPOSITORY = "https://github.com/diarist/diarist/"
START_S = 120

OTHER_TESTS = {
    ("api.md", "json"): "tests/api/test_documentation.py",
    ("api.md", "sh"): "tests/api/test_documentation.py",
    ("cli.md", "console"): "tests/unit/cli/test_docs.py",
    ("cli.md", "sh"): "tests/unit/cli/test_docs.py",
    ("models.md", "console"): "tests/unit/cli/test_docs.py",
    ("output.md", "json"): "tests/unit/cli/test_docs.py",
    ("webhooks.md", "python"): "tests/unit/jobs/outbox/test_webhook_delivery.py",
}
"""The blocks without a directive, by page and language, and the test that runs them or compares them."""


def runs_here(page: Path) -> bool:
    """Return whether the page has blocks that are run with the real models, and that no other test runs."""
    return any(
        block.kind == "run" and (page.name, block.language) not in OTHER_TESTS
        for block in documents.blocks(page.read_text("utf-8"))
    )


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


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_every_block_says_whether_it_is_run(page: Path) -> None:
    document = page.read_text("utf-8")
    lines = {block.line for block in documents.blocks(document) if (page.name, block.language) in OTHER_TESTS}
    faults = [fault for fault in documents.faults(document) if int(fault.split()[1].rstrip(":")) not in lines]
    assert faults == []


def test_the_tests_that_run_other_blocks_read_the_pages() -> None:
    for (page, _), test in OTHER_TESTS.items():
        assert f'"{page}"' in (ROOT / test).read_text("utf-8")


@pytest.mark.models
@pytest.mark.parametrize("page", [page for page in (README, *DOCS) if runs_here(page)], ids=lambda page: page.name)
def test_a_page_tells_the_truth(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, sample_recording: Path, model_store: object
) -> None:
    document = page.read_text("utf-8")
    (tmp_path / "recordings").mkdir()
    for name in ("meeting.wav", "call.wav", "recordings/monday.wav", "recordings/tuesday.wav"):
        shutil.copy(sample_recording, tmp_path / name)
    address = documents.SERVICE
    if any(block.needs_service for block in documents.blocks(document)):
        if shutil.which("curl") is None:
            pytest.skip(f"curl is not installed, and {page.name} shows it")
        address = request.getfixturevalue("service")
    assert documents.run(document, tmp_path, address) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.partition("#")[0]
        if of_repository := re.fullmatch(rf"{REPOSITORY}(?:blob|tree)/main/(.+)", path):
            assert (ROOT / of_repository[1]).exists(), f"{page.name} points to {target}"
        elif not re.match(r"[a-z]+:|#", target):
            assert (page.parent / path).exists(), f"{page.name} points to {target}"


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_pages_of_the_site_point_to_files_outside_it_by_their_addresses(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text("utf-8")):
        path = (page.parent / target.partition("#")[0]).resolve()
        assert path.is_relative_to(ROOT / "docs"), f"{page.name} points to {target}, which is not in the site"


def navigation(entries: list[Any]) -> Iterator[str]:
    """Yield the targets of the navigation of mkdocs.yml."""
    for entry in entries:
        (target,) = entry.values() if isinstance(entry, dict) else (entry,)
        if isinstance(target, list):
            yield from navigation(target)
        else:
            yield target


class TestNavigation:
    CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))

    def test_every_page_is_in_it_once_and_nothing_else(self) -> None:
        targets = list(navigation(self.CONFIGURATION["nav"]))
        pages = [target for target in targets if not target.startswith(REPOSITORY)]
        assert sorted(pages) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in DOCS)
        outside = [re.sub(rf"{REPOSITORY}(?:blob|tree)/main/", "", target) for target in targets if target not in pages]
        assert all((ROOT / target).exists() for target in outside)

    def test_it_has_these_parts(self) -> None:
        parts = [part for entry in self.CONFIGURATION["nav"] for part in entry]
        assert parts == ["Start", "Use", "Operate", "Engines", "Develop"]

    def test_nothing_is_loaded_from_other_sites(self) -> None:
        assert self.CONFIGURATION["theme"]["font"] is False
        shims = self.CONFIGURATION["extra"]["polyfills"]
        assert [shim for shim in shims if "iframe-worker" in shim] == ["assets/iframe-worker.js"]
        assert all((ROOT / "docs" / path).is_file() for path in (*shims, *self.CONFIGURATION["extra_css"]))
