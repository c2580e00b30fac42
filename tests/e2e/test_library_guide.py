"""docs/library.md shows what really works, and describes everything that there is."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest

import diarist
from support import documents

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text("utf-8")


def test_every_block_says_whether_it_is_run():
    assert documents.faults(TEXT) == ()


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.usefixtures("model_store")
def test_every_block_runs(sample_recording, tmp_path):
    shutil.copy(sample_recording, tmp_path / "meeting.wav")
    assert documents.run(TEXT, tmp_path) == len(documents.blocks(TEXT))
    assert {path.name for path in tmp_path.iterdir()} == {f"meeting.{each}" for each in ("wav", "srt", "vtt", "json")}


def test_every_option_is_described():
    named = set(re.findall(r"`(\w+)`", TEXT))
    for function in (diarist.load, diarist.Model.transcribe):
        assert set(inspect.signature(function).parameters) - {"self", "recording", "rate"} <= named
    assert "`rate=`" in TEXT


def test_every_error_is_described():
    errors = {name for name in diarist.__all__ if inspect.isclass(getattr(diarist, name))}
    errors = {name for name in errors if issubclass(getattr(diarist, name), diarist.DiaristError)}
    roots = {"DiaristError", "InputError", "ServiceError"}
    assert errors - roots <= set(re.findall(r"`(\w+)`", TEXT.partition("## Errors")[2]))
