from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from diarist.models import ModelStore
from diarist.models.catalog import Model, parse_catalog
from diarist.models.file_hashes import RECORD_FILE
from unit.models.fake_files import write_wheel

HALVES = (b"first half, " * 5_000, b"second half. " * 5_000)
FILES = {"model.bin": b"".join(HALVES), "config.json": b'{"a": 1}'}
OTHER = b"a file of another model in the same wheel"

CATALOGUE = """
[[wheel]]
requirement = "voice-part1==1.0"
bytes = 1000
[[wheel]]
requirement = "voice-part2==1.0"
bytes = 1000
[[model]]
name = "voice"
role = "recognition"
licence = "MIT"
holder = "nobody"
origin = "https://example.org/voice"
[[model.file]]
name = "model.bin"
bytes = {size}
sha256 = "{model}"
parts = [["voice-part1==1.0", "voice_part1/data/one"], ["voice-part2==1.0", "voice_part2/data/two"]]
[[model.file]]
name = "config.json"
bytes = {config_size}
sha256 = "{config}"
parts = [["voice-part1==1.0", "voice_part1/data/config.json"]]
[[model]]
name = "other"
role = "embedding"
licence = "MIT"
holder = "nobody"
origin = "https://example.org/other"
[[model.file]]
name = "weights"
bytes = {other_size}
sha256 = "{other}"
parts = [["voice-part2==1.0", "voice_part2/data/other"]]
"""


def catalog_text() -> str:
    return CATALOGUE.format(
        size=len(FILES["model.bin"]),
        model=hashlib.sha256(FILES["model.bin"]).hexdigest(),
        config_size=len(FILES["config.json"]),
        config=hashlib.sha256(FILES["config.json"]).hexdigest(),
        other_size=len(OTHER),
        other=hashlib.sha256(OTHER).hexdigest(),
    )


def write_wheels(folder: Path, *, second: bytes = HALVES[1]) -> None:
    one = {"voice_part1/data/one": HALVES[0], "voice_part1/data/config.json": FILES["config.json"]}
    write_wheel(folder, "voice_part1", "1.0", one)
    write_wheel(folder, "voice_part2", "1.0", {"voice_part2/data/two": second, "voice_part2/data/other": OTHER})


@pytest.fixture
def models() -> Mapping[str, Model]:
    return parse_catalog(catalog_text())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes wheels from in place of any index; empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path, models: Mapping[str, Model], index: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", models=models)


@dataclass
class Calls:
    """A progress that keeps what it is told."""

    seen: list[tuple[str, int, int]]

    def __call__(self, model: str, done_bytes: int, total_bytes: int) -> None:
        self.seen.append((model, done_bytes, total_bytes))


@pytest.fixture
def calls() -> Calls:
    return Calls([])


@pytest.fixture
def leftovers() -> Callable[[ModelStore], list[str]]:
    """What is in a store beside whole models."""

    def find(store: ModelStore) -> list[str]:
        known = {f"{model.name}/{file.name}" for model in store.models.values() for file in model.files}
        known |= {f"{name}/{file}" for name in store.models for file in ("model.onnx", "model.json", RECORD_FILE)} | {
            ".lock"
        }
        files = (str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())
        return sorted({*files} - known) + sorted(path.name for path in store.root.glob(".pull-*"))

    return find
