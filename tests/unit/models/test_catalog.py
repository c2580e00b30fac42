from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from diarist.errors import ModelUnavailable
from diarist.models import load_catalog, required
from diarist.models.catalog import find_model, parse_catalog
from diarist.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "models.md"
NOTICE = Path(__file__).parents[3] / "NOTICE.md"


def test_every_model_says_whose_it_is_and_which_bytes_it_is() -> None:
    for model in load_catalog().values():
        assert model.licence in ("MIT", "Apache-2.0", "CC-BY-4.0")
        assert model.origin.startswith("https://")
        assert model.holder
        assert model.files
        for file in model.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.size_bytes > 0
            assert file.parts or model.hub
            path = PurePosixPath(file.name)
            assert str(path) == file.name
            assert not path.is_absolute()
            assert ".." not in path.parts


def test_the_names_that_the_engine_goes_by_are_there() -> None:
    for choice in ("base", "tiny.en"):
        names = required(Settings(whisper_model=choice))
        assert names == ("segmentation-3.0", "campplus", f"whisper-{choice}")
        assert set(names) <= set(load_catalog())


def test_whisper_has_what_its_engine_reads() -> None:
    for name in ("whisper-base", "whisper-tiny.en"):
        files = {file.name for file in load_catalog()[name].files}
        assert files == {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ModelUnavailable, match=r"'whisper-huge'.*segmentation-3\.0, campplus"):
        find_model("whisper-huge", load_catalog())


def test_a_file_in_a_wheel_that_is_not_listed_is_refused() -> None:
    entry = '[[model]]\nname="m"\nrole="r"\nlicence="l"\nholder="h"\norigin="o"\n[[model.file]]\nname="f"\nbytes=1\n'
    with pytest.raises(KeyError, match="nowhere"):
        parse_catalog(entry + 'sha256="0"\nparts=[["nowhere==1", "path"]]\n')


@pytest.mark.parametrize("page", [DOCUMENT, NOTICE], ids=lambda path: path.name)
def test_every_model_is_documented_with_its_licence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for model in load_catalog().values():
        lines = [line for line in text.splitlines() if f"`{model.name}`" in line]
        assert any(model.licence in line for line in lines), model.name
        assert model.origin in text
