from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty, with no settings of the developer's around."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here
