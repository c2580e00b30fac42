"""Models that an operator adds in MODEL_CATALOG."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from diarist.cli import main
from diarist.cli.engine_options import complete_model
from diarist.errors import ConfigurationError
from diarist.models import ModelStore, load_catalog, required, select_recognizer
from diarist.models.user_catalog import catalog_of
from diarist.settings import Settings, load_settings
from support.published_tdt import catalog_text

MODEL = replace(
    load_catalog()["parakeet-tdt-0.6b-v3"], name="my-parakeet", hub="me/my-parakeet", languages=("cy",), accuracy=(),
    derived_bytes=0, memory_mb=None,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(catalog_text([MODEL]), encoding="utf-8")
    return path


def settings_with(path: Path, **chosen: object) -> Settings:
    return load_settings(model_catalog=path, model_dir=path.parent / "models", **chosen)


def test_without_a_file_there_are_the_models_of_diarist() -> None:
    assert catalog_of(load_settings(model_catalog=None)) == load_catalog()


def test_a_model_of_the_file_is_used_like_one_of_diarist(path: Path) -> None:
    settings = settings_with(path, model="my-parakeet")
    assert list(catalog_of(settings)) == [*load_catalog(), "my-parakeet"]
    assert catalog_of(settings)["my-parakeet"] == MODEL
    assert ModelStore.of(settings).info("my-parakeet").licence == "CC-BY-4.0"
    selected = select_recognizer(settings)
    assert (selected.name, selected.model, selected.cataloged) == ("onnx", "my-parakeet", True)
    assert required(settings)[-1] == "my-parakeet"


def test_the_commands_know_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_CATALOG", str(path))
    monkeypatch.setenv("MODEL_DIR", str(path.parent / "models"))
    assert "my-parakeet" in CliRunner().invoke(main, ["models", "list"]).stdout
    assert complete_model(None, None, "my-") == ["my-parakeet"]  # type: ignore[arg-type]
    path.write_text("[[")
    result = CliRunner().invoke(main, ["models", "list"])
    assert result.exit_code == 2
    assert result.stderr.startswith("diarist: MODEL_CATALOG:")
    assert complete_model(None, None, "my-") == []  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MODEL_CATALOG: .*none\.toml cannot be read"):
        catalog_of(settings_with(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "my-parakeet"', 'name = "whisper-base"', "Diarist has a model of this name"),
        ('name = "my-parakeet"', 'name = "base"', "Diarist has a model of this name"),
        ('name = "my-parakeet"', 'name = "../secret"', "a name has letters"),
        ('name = "my-parakeet"', 'name = "exported"', "choose another name"),
        ('name = "my-parakeet"', "name = 7", "cannot be used"),
        ('kind = "tdt"', 'kind = "rnnt"', "kind one of whisper, tdt"),
        ('role = "recognition"', 'role = "embedding"', "role must be recognition"),
        ('features = "nemo-128"', 'features = "kaldi"', "features must be one of nemo-80, nemo-128"),
        ('quantization = "int8"', 'quantization = "int4"', "quantization must be int8"),
        ('quantization = "int8"', "", r"it has no file encoder-model\.onnx and decoder_joint-model\.onnx"),
        ('kind = "tdt"', 'kind = "tdt"\ngraph = "campplus"', "Diarist builds no graph for it"),
        ('name = "vocab.txt"', 'name = "features.npz"', "'features.npz' cannot be the name of a file"),
        ("frame_step = 0.08", "frame_step = 0", "frame_step more than 0"),
        ('name = "vocab.txt"', 'name = "../vocab.txt"', "'../vocab.txt' cannot be the name of a file"),
        ('name = "vocab.txt"', 'name = ".hashes.json"', "cannot be the name of a file"),
        ("bytes = 93939", "bytes = 0", "vocab.txt needs its size"),
        ('sha256 = "d58544679ea4bc6', 'sha256 = "', "vocab.txt needs its size in bytes and its SHA-256"),
        ('role = "recognition"\n', "", "'role' is missing"),
        ("[[model]]", "[[model]", "cannot be used"),
        ("[[model]]", "[[models]]", "cannot be used"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(old: str, new: str, message: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        catalog_of(settings_with(path))


@pytest.mark.parametrize("content", [b"\xff", b"model = 1", b"model = [1]", b""])
def test_a_file_that_is_no_catalog_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="MODEL_CATALOG"):
        catalog_of(settings_with(path))
