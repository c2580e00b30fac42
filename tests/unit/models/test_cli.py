from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from diarist.cli import main
from diarist.models import load_catalog

NAMES = list(load_catalog())
NEEDED = ["segmentation-3.0", "campplus", "whisper-base"]


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
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    table = {line[2:].split()[0]: line.split() for line in lines if line.endswith("missing")}
    assert sorted(table) == sorted(NAMES)
    for name, row in table.items():
        model = load_catalog()[name]
        assert row[-3:] == [model.licence, "yes" if model.tested else "no", "missing"]
    assert sorted(name for name, row in table.items() if row[0] == "*") == sorted(NEEDED)
    assert table["parakeet-tdt-0.6b-v3"][1:4] == ["25", "671", "MB"]
    assert table["whisper-base"][2:7] == ["99", "148", "MB", "1.20", "GB"]
    recommended = lines[next(i for i, line in enumerate(lines) if line.startswith("Recommended for ")) + 1 :]
    assert [line[2:21].strip() for line in recommended] == ["English", "European languages", "other languages"]


def test_the_list_for_programs(folder: Path) -> None:
    (folder / "campplus").mkdir(parents=True)
    (folder / "campplus" / load_catalog()["campplus"].files[0].name).write_bytes(b"too short")
    answer = json.loads(diarist("list", "--json").stdout)
    assert answer["folder"] == str(folder)
    assert answer["machine"]["cores"] >= 1
    models = {model["name"]: model for model in answer["models"]}
    assert list(models) == NAMES
    assert {name: model["state"] for name, model in models.items() if model["state"] != "missing"} == {
        "campplus": "error"
    }
    assert sorted(name for name, model in models.items() if model["needed"]) == sorted(NEEDED)
    assert models["parakeet-tdt-0.6b-v2"]["accuracy"] == [
        {"figure": "6.05 % WER, English, mean of 8 sets", "source": "evaluation file of the model"}
    ]
    assert models["parakeet-tdt-0.6b-v2"]["languages"] == ["en"]
    assert models["segmentation-3.0"]["disk_bytes"] > models["segmentation-3.0"]["size_bytes"]
    for group, name in answer["recommended"].items():
        assert group in models[name]["recommended_for"]


def test_verify_names_what_is_wrong_and_fails(folder: Path) -> None:
    result = diarist("verify")
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == NEEDED
    for name, line in zip(NEEDED, lines, strict=True):
        assert f"run `diarist models pull {name}`" in line


def test_verify_of_all_looks_at_all(folder: Path) -> None:
    assert [line.partition(":")[0] for line in diarist("verify", "--all").stderr.splitlines()] == NAMES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("large-v3-turbo", "whisper-large-v3-turbo"),
        ("whisper-large-v3-turbo", "whisper-large-v3-turbo"),
        ("Parakeet-TDT-0.6b-v3", "parakeet-tdt-0.6b-v3"),
        ("istupakov/parakeet-tdt-0.6b-v2-onnx", "parakeet-tdt-0.6b-v2"),
        ("distil-large-v3.5", "distil-large-v3.5"),
    ],
)
def test_names_may_be_short(folder: Path, name: str, expected: str) -> None:
    assert diarist("verify", name, expected).stderr.startswith(f"{expected}: Model {expected} is missing")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whisper-huge", "Did you mean .*whisper-large-v3"),
        ("parakeet", "Did you mean parakeet-tdt-0.6b-v3 or parakeet-tdt-0.6b-v2"),
        ("large-v3-trubo", "whisper-large-v3-turbo"),
        ("zzz", "`diarist models list` shows all of them"),
        ("nvidia/canary-1b-v2", "is a NeMo model.*NEMO_ASR_MODEL with RECOGNIZER=nemo.*diarist models pull"),
        ("nvidia/parakeet-tdt-0.6b-v3", "The same model as ONNX is parakeet-tdt-0.6b-v3 in the list"),
        ("titanet_large", "is a NeMo model.*DIAR_CONFIG"),
        ("diar_streaming_sortformer_4spk-v2.1", "SORTFORMER_MODEL with DIARIZER=sortformer"),
    ],
)
def test_a_name_that_no_model_has_is_a_wrong_option(folder: Path, name: str, words: str) -> None:
    for command in ("pull", "verify"):
        result = diarist(command, name)
        assert result.exit_code == 2
        assert re.search(words, result.stderr), result.stderr


def test_all_models_are_fetched_only_after_a_confirmation(folder: Path) -> None:
    result = diarist("pull", "--all", "--offline")
    assert result.exit_code == 2
    assert f"--all fetches {len(NAMES)} models with 2" in result.stderr
    assert "GB: add --yes" in result.stderr
    confirmed = diarist("pull", "--all", "--offline", "--yes")
    assert confirmed.exit_code == 3
    assert confirmed.stderr.startswith("diarist: Model segmentation-3.0 is not on this machine")


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


def test_the_list_is_shown_although_the_settings_name_no_model_of_it(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("MODEL", "parakeet")
    result = diarist("list")
    assert result.exit_code == 0
    assert "MODEL: there is no model 'parakeet'" in result.stderr
    assert "parakeet-tdt-0.6b-v3 " in result.stdout
    assert not any(line.startswith("* whisper") for line in result.stdout.splitlines())
