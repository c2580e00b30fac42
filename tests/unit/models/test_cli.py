from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from diarist.cli import main
from diarist.models import load_catalog

NAMES = ["segmentation-3.0", "campplus", "whisper-base", "whisper-tiny.en"]


@pytest.fixture
def folder(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MODEL_DIR: empty, with no source within reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MODEL_SOURCE_DIR", raising=False)
    return tmp_path / "models"


def diarist(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_the_list_shows_every_model_with_its_state(folder: Path) -> None:
    result = diarist("list")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [(row[0], row[2]) for row in rows] == [(m.name, m.licence) for m in load_catalog().values()]
    assert all("missing" in line for line in result.stdout.splitlines()[1:])
    assert [line.split()[0] for line in result.stdout.splitlines() if "not needed" in line] == ["whisper-tiny.en"]


def test_the_list_for_programs(folder: Path) -> None:
    (folder / "campplus").mkdir(parents=True)
    (folder / "campplus" / load_catalog()["campplus"].files[0].name).write_bytes(b"too short")
    answer = json.loads(diarist("list", "--json").stdout)
    assert answer["folder"] == str(folder)
    assert [model["name"] for model in answer["models"]] == NAMES
    assert [model["state"] for model in answer["models"]] == ["missing", "error", "missing", "missing"]
    assert [model["needed"] for model in answer["models"]] == [True, True, True, False]


def test_verify_names_what_is_wrong_and_fails(folder: Path) -> None:
    result = diarist("verify")
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == NAMES[:3]
    assert all("run `diarist models pull`" in line for line in lines)


def test_verify_of_all_looks_at_all(folder: Path) -> None:
    assert [line.partition(":")[0] for line in diarist("verify", "--all").stderr.splitlines()] == NAMES


def test_a_name_that_no_model_has_is_a_wrong_option(folder: Path) -> None:
    for command in ("pull", "verify"):
        result = diarist(command, "whisper-huge")
        assert result.exit_code == 2
        assert "whisper-tiny.en" in result.stderr


def test_a_pull_without_source_says_what_to_do(folder: Path) -> None:
    result = diarist("pull", "--offline")
    assert result.exit_code == 3
    assert result.stderr.startswith("diarist: Model segmentation-3.0 is not on this machine")
    assert "MODEL_SOURCE_DIR" in result.stderr


def copy_of_real_whisper(real: Path, source: Path) -> None:
    (source / "whisper-base").mkdir(parents=True)
    for path in real.iterdir():
        (source / "whisper-base" / path.name).symlink_to(path)


@pytest.mark.models
def test_pull_fetches_from_the_source_folder_and_verify_agrees(
    folder: Path, tmp_path: Path, model_store: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of_real_whisper(model_store.locate("whisper-base"), tmp_path / "source")
    monkeypatch.setenv("MODEL_SOURCE_DIR", str(tmp_path / "source"))
    pulled = diarist("pull", "whisper-base", "--offline")
    assert (pulled.exit_code, pulled.stdout) == (0, f"whisper-base: ready in {folder / 'whisper-base'}\n")
    assert diarist("verify", "whisper-base").exit_code == 0
    model = folder / "whisper-base" / "model.bin"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == load_catalog()["whisper-base"].files[0].sha256
    os.truncate(model, 1_000)
    damaged = diarist("verify", "whisper-base")
    assert damaged.exit_code == 1
    assert "model.bin" in damaged.stderr
    assert diarist("pull", "whisper-base", "--offline").exit_code == 0
    assert diarist("verify", "whisper-base").exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom diarist.cli import main\ntry: main(['models', 'pull', '--help'])\nfinally:\n"
        " print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Fetch models" in result.stdout
    assert not {"onnx", "onnxruntime", "faster_whisper", "huggingface_hub", "numpy"} & set(result.stderr.split())
