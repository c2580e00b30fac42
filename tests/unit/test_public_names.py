"""``import diarist``: what it gives, and that it does nothing else."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

import diarist

PUBLIC = {
    "load", "transcribe", "diarize", "load_settings", "__version__",
    "Model", "Transcript", "Diarization", "Utterance", "Word", "Turn", "Span", "Settings",
    "DiaristError", "InputError", "InvalidOption", "AudioError", "NotAudio", "EmptyAudio", "CorruptAudio",
    "UnsupportedAudio", "TrackNotFound", "AudioTooLong", "ServiceError", "ConfigurationError", "ModelError",
    "ModelUnavailable", "ModelCorrupt", "DecoderFailed", "EngineUnavailable", "StorageFull", "JobFailed", "Cancelled",
}  # fmt: skip

IMPORT = """
import json, os, sys, time
before = dict(os.environ)
modules = set(sys.modules)
started = time.perf_counter()
import diarist
took = time.perf_counter() - started
print(json.dumps([took, dict(os.environ) == before, sorted(set(sys.modules) - modules)]))
"""


def imported() -> tuple[float, bool, list[str]]:
    """Import the package in a new process: the time, whether the environment is the same, and the loaded modules."""
    took, same, modules = json.loads(subprocess.check_output([sys.executable, "-c", IMPORT], timeout=60))
    return took, same, modules


def test_the_public_names_are_these():
    assert set(diarist.__all__) == PUBLIC
    assert len(diarist.__all__) == len(PUBLIC)
    assert set(dir(diarist)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_is_there_and_has_a_docstring(name):
    value = getattr(diarist, name)
    assert len((value.__doc__ or "").split()) > 2
    assert not value.__doc__.startswith(f"{name}("), "the docstring is the one that dataclasses generate"
    if inspect.isclass(value) and not issubclass(value, Exception) and name != "Settings":
        members = {key: member for key, member in vars(value).items() if not key.startswith("_")}
        for key, member in members.items():
            if inspect.isfunction(member) or isinstance(member, classmethod | property):
                assert (member.__doc__ or "").strip(), f"{name}.{key}"


def test_a_star_import_gives_the_public_names():
    program = (
        "from diarist import *; print(*sorted(name for name in dir() if name[:2] != '__' or name == '__version__'))"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).split()
    assert set(printed) == PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'transcirbe'"):
        diarist.transcirbe  # noqa: B018
    assert diarist.__version__ == version("diarist")


def test_types_are_marked():
    assert Path(diarist.__file__).with_name("py.typed").is_file()
    assert any(classifier == "Typing :: Typed" for classifier in distribution("diarist").metadata.get_all("Classifier"))


@pytest.mark.slow
def test_importing_takes_no_time_loads_no_library_and_changes_no_environment():
    results = [imported() for _ in range(5)]
    assert min(took for took, _, _ in results) < 0.15
    for _, same, modules in results:
        assert same
        assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names == {"diarist"}
        assert [name for name in modules if name.startswith("diarist")] == ["diarist"]


@pytest.mark.slow
def test_using_the_library_leaves_the_environment_and_loads_no_engine():
    program = (
        "import os; before = dict(os.environ); import diarist\n"
        "diarist.Model, diarist.Transcript, diarist.load_settings(); assert dict(os.environ) == before\n"
        "import sys; print(*{'onnxruntime', 'ctranslate2', 'faster_whisper', 'av', 'torch', 'flask'} & {*sys.modules})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True, timeout=60)
    assert printed.split() == []
