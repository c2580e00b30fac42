"""The documentation builds without a network, a warning or a dead link, and readers find what they look for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import diarist
from diarist import errors
from support.browser import CHROMIUM, shown
from support.scripts import loaded_script

ROOT = Path(__file__).parents[2]
BUILD_S = 120

pytestmark = pytest.mark.slow

QUESTIONS = {
    "subtitles of a folder": "how-to.html#get-subtitles-for-a-folder",
    "keep a recording from being stored": "how-to.html#keep-a-recording-from-being-stored",
    "speaker limit": "how-to.html#limit-or-set-the-number-of-speakers",
    "two machines": "how-to.html#run-it-on-two-machines",
    "model for German": "how-to.html#use-a-model-for-german-or-another-language",
}
"""What readers search for, and the section that answers it."""


@pytest.fixture(scope="module")
def check_site() -> Iterator[ModuleType]:
    with loaded_script(ROOT / "docs" / "check_site.py") as module:
        yield module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it, without a network where that can be had."""
    pytest.importorskip("zensical")
    target = tmp_path_factory.mktemp("documentation") / "site"
    alone = ["unshare", "--map-root-user", "--net"] if can_be_alone() else []
    command = [*alone, sys.executable, str(ROOT / "docs" / "build_site.py"), str(target)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return target


def can_be_alone() -> bool:
    """Return whether a process can be started here that has no network."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--net", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_every_page_is_built_and_no_program_is_published(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")} == pages
    assert list(site.rglob("*.py")) == []


def test_every_page_can_be_reached_from_the_navigation(site: Path, check_site: ModuleType) -> None:
    home = (site / "index.html").read_text("utf-8")
    links = {link.partition("#")[0].removeprefix("./") for link in check_site.read_page(home).links}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html", "index.html"}
    assert pages - links == set()


def test_each_part_of_the_navigation_begins_with_a_page_of_the_site(site: Path) -> None:
    home = (site / "index.html").read_text("utf-8")
    parts = re.findall(r'<a href="([^"]+)" class="md-tabs__link', home)
    assert len(parts) == 5
    assert all((site / part).is_file() for part in parts)


SEARCH = """<script>
const all = root => [...root.querySelectorAll("*")].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
addEventListener("load", () => {
  dispatchEvent(new KeyboardEvent("keydown", {key: "k", ctrlKey: true}));
  const search = setInterval(() => {
    const input = all(document).find(e => e.matches("input[type=search], input[type=text], input[role=combobox]"));
    if (input && input.value !== QUERY) {
      input.value = QUERY;
      input.dispatchEvent(new Event("input", {bubbles: true}));
    }
    const hit = all(document).find(e => e.tagName === "A" && e.href.includes("?h="));
    if (hit) {
      clearInterval(search);
      document.body.innerHTML = `<p id="hit"></p>`;
      document.getElementById("hit").textContent = hit.href;
    }
  }, 100);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package is chromium)")
@pytest.mark.parametrize(("query", "section"), QUESTIONS.items())
def test_the_first_hit_answers_what_readers_search_for(site: Path, query: str, section: str, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    page = copy / "index.html"
    script = SEARCH.replace("QUERY", json.dumps(query))
    page.write_text(page.read_text("utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    # Pages that are opened from a disk get no worker of the browser: the search works by the script in docs/assets.
    document = shown(page.as_uri(), tmp_path / "profile", clock_ms=20_000)
    (hit,) = re.findall(r'<p id="hit">([^<]*)</p>', document)
    assert re.sub(r"\?h=[^#]*", "", hit) == f"{copy.as_uri()}/{section}"


def test_the_reference_has_every_public_name(site: Path) -> None:
    anchors = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    for name in (name for name, kind in vars(errors).items() if isinstance(kind, type)):
        assert f'id="diarist.errors.{name}"' in anchors or name.startswith("_")
    for name in getattr(diarist, "__all__", ()):
        assert name.startswith("__") or re.search(rf'id="diarist\.(?:\w+\.)*{name}"', anchors), name


class TestChecker:
    """A fault must be found."""

    @pytest.mark.parametrize(
        ("page", "fault"),
        [
            ('<a href="none.html">x</a>', "none.html, which does not exist"),
            ('<a href="#none">x</a>', "#none, and there is no such anchor"),
            ('<a href="other.html#none">x</a>', "other.html#none, and there is no such anchor"),
            ('<script src="https://unpkg.com/x"></script>', "loads https://unpkg.com/x"),
            ('<link rel="stylesheet" href="//fonts.example/x">', "loads //fonts.example/x"),
            ('<link rel="preconnect" href="https://fonts.example">', "loads https://fonts.example"),
            ('<img src="none.svg">', "none.svg, which does not exist"),
        ],
    )
    def test_a_fault_is_named(self, check_site: ModuleType, tmp_path: Path, page: str, fault: str) -> None:
        (tmp_path / "index.html").write_text(page)
        (tmp_path / "other.html").write_text('<p id="here"></p>')
        (found,) = check_site.faults(tmp_path)
        assert found.endswith(fault)

    def test_what_is_right_passes(self, check_site: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text(
            '<a href="#here" id="here"></a><a href="sub/">x</a><a href="https://example.org">x</a><img src="a.svg">'
        )
        (tmp_path / "a.svg").touch()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "index.html").write_text('<a href="../index.html#here">x</a>')
        assert list(check_site.faults(tmp_path)) == []

    def test_an_empty_folder_is_a_fault(self, check_site: ModuleType, tmp_path: Path) -> None:
        assert len(list(check_site.faults(tmp_path))) == 1
