from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty, with no settings of the developer's around."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here
