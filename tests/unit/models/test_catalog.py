from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from diarist.errors import ModelUnavailable
from diarist.models import ModelStore, load_catalog, required
from diarist.models.catalog import find_model, parse_catalog
from diarist.models.recommendation import COMMERCIAL_LICENCES, Machine, recommend
from diarist.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "models.md"
WHICH_MODEL = DOCUMENT.with_name("which-model.md")
NOTICE = Path(__file__).parents[3] / "NOTICE.md"


def test_every_model_says_whose_it_is_and_which_bytes_it_is() -> None:
    for model in load_catalog().values():
        assert model.licence in ("MIT", "Apache-2.0", "CC-BY-4.0")
        assert model.origin.startswith("https://")
        assert model.holder
        assert model.files
        assert all(figure.figure and figure.source for figure in model.accuracy)
        assert model.revision or not model.hub, f"{model.name} could change on the hub"
        assert len({file.name for file in model.files}) == len(model.files)
        for file in model.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.size_bytes > 0
            assert file.parts or model.hub
            path = PurePosixPath(file.name)
            assert str(path) == file.name
            assert not path.is_absolute()
            assert ".." not in path.parts
            assert not any(part.startswith(".") for part in path.parts), "hidden files are not checked"


def test_only_these_models_were_run_with_their_weights() -> None:
    tested = {name for name, model in load_catalog().items() if model.tested}
    assert tested == {"segmentation-3.0", "campplus", "whisper-base", "whisper-tiny.en"}


def test_the_names_that_the_engine_goes_by_are_there() -> None:
    for choice in ("base", "tiny.en"):
        names = required(Settings(whisper_model=choice))
        assert names == ("segmentation-3.0", "campplus", f"whisper-{choice}")
        assert set(names) <= set(load_catalog())


def test_whisper_has_what_its_engine_reads() -> None:
    for model in load_catalog().values():
        files = {file.name for file in model.files}
        if model.kind == "whisper":
            assert {"model.bin", "config.json", "tokenizer.json"} <= files, model.name
            assert files & {"vocabulary.txt", "vocabulary.json"}, model.name
        if model.kind == "tdt":
            assert {"vocab.txt", "config.json"} <= files, model.name


@pytest.mark.models
def test_the_sizes_on_disk_are_those_of_the_files(model_store: ModelStore) -> None:
    for name in ("segmentation-3.0", "campplus", "whisper-base"):
        model_store.locate(name)
        files = [path for path in (model_store.root / name).rglob("*") if not path.name.startswith(".")]
        assert sum(path.stat().st_size for path in files if path.is_file()) == model_store.models[name].disk_bytes


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ModelUnavailable, match=r"'whisper-huge'.*segmentation-3\.0, campplus"):
        find_model("whisper-huge", load_catalog())


def test_a_graph_counts_as_much_as_its_file() -> None:
    entry = (
        '[[model]]\nname="m"\nrole="r"\nlicence="l"\nholder="h"\norigin="o"\nhub="a/b"\n{}[[model.file]]\nname="f"\n'
    )
    entry += 'bytes=1000\nsha256="0"\n'
    sizes = [
        parse_catalog(entry.format(line))["m"].disk_bytes
        for line in ("", 'graph = "campplus"\n', 'graph = "campplus"\nderived_bytes = 5\n')
    ]
    assert sizes == [1_000, 2_000, 1_005]


def test_a_file_in_a_wheel_that_is_not_listed_is_refused() -> None:
    entry = '[[model]]\nname="m"\nrole="r"\nlicence="l"\nholder="h"\norigin="o"\n[[model.file]]\nname="f"\nbytes=1\n'
    with pytest.raises(KeyError, match="nowhere"):
        parse_catalog(entry + 'sha256="0"\nparts=[["nowhere==1", "path"]]\n')


@pytest.mark.parametrize("page", [DOCUMENT, NOTICE], ids=lambda path: path.name)
def test_every_model_is_documented_with_its_licence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for model in load_catalog().values():
        lines = [line for line in text.splitlines() if line.startswith(f"| `{model.name}` |")]
        assert any(model.licence in line for line in lines), model.name
        assert model.origin in text


def test_every_model_is_documented_with_what_the_list_shows() -> None:
    """The sizes are rounded as in the list. A model that was never run says so."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")]
        for line in text.splitlines()
        if "| <http" in line
    }
    assert rows.keys() == load_catalog().keys()
    for model in load_catalog().values():
        row = rows[model.name]
        size = model.disk_bytes
        assert (f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.{0 if size > 1e6 else 1}f} MB") in row
        assert ("yes" if model.tested else "no") in row
        if model.languages:
            assert (model.languages[0] if len(model.languages) == 1 else str(len(model.languages))) in row
        for figure in model.accuracy:
            assert f"{figure.figure} ({figure.source})" in " ".join(row)


def test_nothing_that_forbids_commercial_use_is_a_default_or_recommended() -> None:
    for settings in (Settings(), Settings(whisper_model="tiny.en"), Settings(model="parakeet-tdt-0.6b-v3")):
        assert {load_catalog()[name].licence for name in required(settings)} <= COMMERCIAL_LICENCES
    page = WHICH_MODEL.read_text(encoding="utf-8")
    named = {name for name in load_catalog() if f"`{name}`" in page}
    assert len(named) > 8
    assert {load_catalog()[name].licence for name in named} <= COMMERCIAL_LICENCES


def test_the_page_of_recommendations_says_what_the_list_recommends() -> None:
    page = WHICH_MODEL.read_text(encoding="utf-8")
    for heading, cores, memory_mb in (("2 GB of memory", 1, 1_900), ("laptop", 4, 8_192), ("server", 8, 16_384)):
        row = next(line for line in page.splitlines() if line.startswith(f"| {heading}"))
        for model in recommend(load_catalog(), Machine(cores, memory_mb)).values():
            assert f"`{model.name}`" in row, (heading, model.name)
