from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diarist.errors import ConfigurationError
from diarist.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all settings from the environment and provide a folder without ``.env``."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def describe_settings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("describe_settings", ROOT / "docs" / "describe_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dotenv(tmp_path: Path) -> Callable[[str], None]:
    return lambda text: (tmp_path / ".env").write_text(text, encoding="utf-8") and None


def test_the_generated_files_are_up_to_date(describe_settings: ModuleType) -> None:
    for path, text in describe_settings.FILES.items():
        assert path.read_text(encoding="utf-8") == text(), f"run `make settings`: {path.name} is behind settings.py"


def test_every_setting_is_in_both_files() -> None:
    example, table = (ROOT / ".env.example").read_text("utf-8"), (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in Settings.model_fields:
        assert re.search(rf"^# {name.upper()}=", example, re.MULTILINE), name
        assert f"| `{name.upper()}` |" in table


def test_every_setting_is_in_a_section(describe_settings: ModuleType) -> None:
    names = list(Settings.model_fields)
    assert names[0] in describe_settings.SECTIONS
    assert list(describe_settings.SECTIONS) == [name for name in names if name in describe_settings.SECTIONS]


def test_the_example_with_everything_uncommented_gives_the_defaults(dotenv: Callable[[str], None]) -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    uncommented = re.sub(r"^# (?=[A-Z_]+=)", "", example, flags=re.MULTILINE)
    assert uncommented.count("\n# ") < example.count("\n# ")
    defaults = load_settings()
    dotenv(uncommented)
    assert load_settings() == defaults


def test_a_new_type_of_setting_must_be_described(describe_settings: ModuleType) -> None:
    class Odd(Settings):
        weights: complex = 0j
        """Not written anywhere."""

    with pytest.raises(TypeError, match="complex"):
        describe_settings.accepted_values(Odd.model_fields["weights"])


def test_the_environment_comes_before_the_file_and_options_before_both(
    monkeypatch: pytest.MonkeyPatch, dotenv: Callable[[str], None]
) -> None:
    dotenv("FLASK_PORT=1\nHTTP_THREADS=5\nMAX_WAITING=3\n")
    monkeypatch.setenv("flask_port", "2")
    monkeypatch.setenv("HTTP_THREADS", "6")
    settings = load_settings(flask_port=7)
    assert (settings.flask_port, settings.http_threads, settings.max_waiting) == (7, 6, 3)


def test_an_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_PORT", "")
    monkeypatch.setenv("TEMP_AUDIO_DIR", "")
    assert load_settings().flask_port == 5000
    assert load_settings().temp_dir == Path("data/tmp")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLASK_PORT", "65536"),
        ("FLASK_PORT", "five"),
        ("CPU_THREADS", "1.5"),
        ("MAX_DURATION_S", "nan"),
        ("MAX_DURATION_S", "inf"),
        ("LOG_LEVEL", "LOUD"),
        ("FLASK_DEBUG", "perhaps"),
        ("ENGINE", "steam"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: .*{re.escape(value)}"):
        load_settings()


def test_all_invalid_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_PORT", "-1")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match=r"FLASK_PORT: .*LOG_FORMAT: "):
        load_settings()


def test_an_unknown_setting_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="flask_prot"):
        load_settings(flask_prot=1)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LOG_FILE=caf\xe9.log\n")
    with pytest.raises(ConfigurationError, match=r"\.env"):
        load_settings()


def test_a_tilde_is_expanded_to_the_home_folder(monkeypatch: pytest.MonkeyPatch, dotenv: Callable[[str], None]) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    dotenv("MODEL_DIR=~/models\nMODEL_SOURCE_DIR=~/wheels\n")
    assert load_settings().model_dir == Path("/home/somebody/models")
    assert load_settings().model_source_dir == Path("/home/somebody/wheels")


def test_models_are_kept_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert load_settings().model_dir == Path("/home/somebody/.cache/diarist")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert load_settings().model_dir == Path("/caches/diarist")


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().flask_port = 1


def test_derived_values() -> None:
    settings = load_settings(max_upload_mb=3, cpu_threads=5, data_dir=Path("/d"), temp_audio_dir=Path("/t"))
    assert (settings.upload_limit_bytes, settings.threads, settings.temp_dir) == (3 * 2**20, 5, Path("/t"))
    assert 1 <= load_settings().threads <= 8
