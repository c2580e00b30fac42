"""Checks the built documentation.

Every link and anchor within the site has to lead somewhere, and no page may load anything from another site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""The attributes of elements by which a page loads something."""

LOADING_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
"""The values of ``rel`` with which a ``link`` makes the browser load or connect."""


@dataclass(slots=True)
class Page:
    """What a page contains that other pages refer to, and what it refers to."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.page.loads.append(values[LOADED[tag]])
        if tag == "link" and LOADING_RELATIONS & set(values.get("rel", "").split()):
            self.page.loads.append(values.get("href", ""))


def read_page(html: str) -> Page:
    """Return the anchors and references of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.page


def faults(site: Path) -> Iterator[str]:
    """Yield a message for each reference that leads nowhere or to what another site would have to provide."""
    pages = {path.resolve(): read_page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} contains no pages"
    for path, page in pages.items():
        if path.name != "404.html":  # its links are relative to the address that does not exist
            found = (*_faults_of_loads(path, page), *_faults_of_links(path, page, pages))
            yield from (f"{path.relative_to(site.resolve()).as_posix()} {fault}" for fault in found)


def _faults_of_loads(path: Path, page: Page) -> Iterator[str]:
    for load in page.loads:
        if urlsplit(load).netloc:
            yield f"loads {load}"
        elif not urlsplit(load).scheme and not _target(path, load).is_file():
            yield f"loads {load}, which does not exist"


def _faults_of_links(path: Path, page: Page, pages: Mapping[Path, Page]) -> Iterator[str]:
    for link in page.links:
        if urlsplit(link).scheme or urlsplit(link).netloc:
            continue
        target, anchor = _target(path, link), unquote(urldefrag(link).fragment)
        if not target.is_file():
            yield f"links to {link}, which does not exist"
        elif anchor and target in pages and anchor not in pages[target].anchors:
            yield f"links to {link}, and there is no such anchor"


def _target(page: Path, link: str) -> Path:
    relative = unquote(urlsplit(link).path)
    if not relative:
        return page
    target = (page.parent / relative).resolve()
    return target / "index.html" if target.is_dir() else target
