"""``diarist models export`` without NeMo. The export itself is tested with the engine."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from diarist.cli import UNAVAILABLE, USAGE, main


def export(*arguments):
    return CliRunner().invoke(main, ["models", "export", *arguments])


def test_without_pytorch_it_says_how_to_get_nemo(folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("diarist.engines.nemo.")]:
        monkeypatch.delitem(sys.modules, name)
    # an import of what is None fails as that of something which is not installed
    monkeypatch.setitem(sys.modules, "torch", None)
    result = export("nvidia/parakeet-tdt-0.6b-v3")
    assert result.exit_code == UNAVAILABLE
    assert "pip install 'diarist[nemo]'" in result.stderr
    assert "Traceback" not in result.output
    assert list(folder.iterdir()) == []


@pytest.mark.nemo
def test_without_nemo_it_says_how_to_get_it(nemo_models, folder, monkeypatch):
    path = nemo_models["ctc"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "nemo"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "nemo", None)
    result = export(str(path), "--to", "there")
    assert result.exit_code == UNAVAILABLE
    assert "diarist[nemo]" in result.stderr or "docs/nemo.md" in result.stderr
    assert list(folder.iterdir()) == []


def test_a_model_has_to_be_named(folder):
    assert export().exit_code == USAGE


def test_only_int8_is_offered(folder):
    result = export("x", "--quantize", "int4")
    assert result.exit_code == USAGE
    assert "int8" in result.stderr
