"""What may not be loaded, and what may not be installed. Imports among our own modules are import-linter's."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diarist.models import required
from diarist.models.catalog import load_catalog
from diarist.settings import Settings

ROOT = Path(__file__).parents[2]

HEAVY_MODULES = (
    "torch",
    "nemo",
    "onnxruntime",
    "onnx",
    "av",
    "faster_whisper",
    "ctranslate2",
    "huggingface_hub",
    "scipy",
    "alembic",
)
HEAVY_DISTRIBUTIONS = {"torch", "torchaudio", "scipy", "scikit-learn", "numba", "pandas", "nemo-toolkit", "omegaconf"}


@pytest.mark.parametrize("module", ["diarist", "diarist.api", "diarist.cli", "diarist.jobs", "diarist.settings"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY_MODULES!r}) & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert loaded.stdout.split() == []


def closure(root: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of everything that installing ``root`` brings on this machine, itself included."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(root), extras)]
    while waiting:
        name, asked = waiting.pop()
        if (name, asked) in seen:
            continue
        seen.add((name, asked))
        found.add(name)
        for line in distribution(name).requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in asked | {""}):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found


def test_the_default_install_stays_light() -> None:
    installed = closure("diarist")
    assert {"flask", "onnxruntime", "ctranslate2", "numpy", "werkzeug"} <= installed  # the walk is a real one
    assert installed & HEAVY_DISTRIBUTIONS == set()


def test_the_default_install_and_its_models_stay_under_800_mb() -> None:
    files = [path.locate() for name in closure("diarist") - {"diarist"} for path in distribution(name).files or ()]
    installed = sum(Path(path).stat().st_size for path in files if Path(path).is_file())
    catalog = load_catalog()
    models = sum(catalog[name].disk_bytes for name in required(Settings(_env_file=None)))
    assert installed > 300e6, "the walk is a real one"
    assert installed + models < 800e6


def test_the_walk_sees_what_an_extra_brings() -> None:
    try:
        assert "pytest" in closure("diarist", frozenset({"dev"}))
    except PackageNotFoundError as error:
        pytest.fail(f"the dev extra is not installed in full: {error}")
    assert "pytest" not in closure("diarist")


def test_contributing_shows_the_layers_that_the_code_is_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    held = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    chain = re.search(r"(?:`[\w.]+`[,\s→]+)+`[\w.]+`(?=\.)", text)
    assert chain is not None
    shown = [set(re.findall(r"`([\w.]+)`", layer)) for layer in chain[0].split("→")]
    assert shown == [{name.strip().removeprefix("diarist.") for name in layer.split("|")} for layer in held]
