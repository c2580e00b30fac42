"""NeMo's words go to our log and nowhere else; nothing that would let model files run code goes by."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from diarist.engines.nemo import safe_import
from diarist.errors import ConfigurationError
from diarist.settings import Settings

pytestmark = pytest.mark.nemo

SESSION = """
import logging, sys, warnings
from pathlib import Path
from diarist.observability import logs
from diarist.settings import Settings

model, folder = sys.argv[1:]
settings = Settings(nemo_device="cpu", nemo_log_level="ERROR", log_file=Path(folder) / "log", cpu_threads=1)
logs.configure_worker(settings)
from diarist.engines.nemo.loading import load_model
from diarist.engines.nemo.device import Runtime
runtime = Runtime.of(settings)
assert "nemo" not in sys.modules, "the runtime alone does not need NeMo"

def use(settings):
    import numpy as np
    loaded = load_model(model, "recognition", settings, runtime)
    with runtime.inference():
        loaded.model.transcribe([np.zeros(16_000, dtype=np.float32)], verbose=False, timestamps=True)

use(settings)
warnings.warn_explicit("of others", UserWarning, "others.py", 1, module="others")
warnings.warn_explicit("of ours", UserWarning, "ours.py", 1, module="diarist.ours")
logging.getLogger("nemo_logger").error("now more")
use(settings.model_copy(update={"nemo_log_level": "INFO"}))
"""


def test_only_what_the_level_lets_through(nemo_models, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SESSION, nemo_models["tdt"], tmp_path],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "the standard output belongs to the line to the supervisor"
    lines = [json.loads(line) for line in done.stderr.splitlines()]  # nothing but records
    told = [(line["logger"], line["level"]) for line in lines]
    loaded = ("diarist.engines.nemo.loading", logging.INFO)
    assert told[:3] == [loaded, ("py.warnings", logging.WARNING), ("nemo_logger", logging.ERROR)]
    assert "of ours" in lines[1]["message"]
    assert lines[2]["message"] == "now more"
    more = told[3:]
    assert ("nemo_logger", logging.INFO) in more
    assert ("nemo_logger", logging.WARNING) in more
    assert any("Tokenizer" in line["message"] for line in lines[3:])
    assert {name for name, _ in told} == {"diarist.engines.nemo.loading", "py.warnings", "nemo_logger"}


@pytest.fixture
def _logger_as_it_was():
    logger = logging.getLogger("nemo_logger")
    before = logger.level, logger.propagate, logger.filters[:], logger.handlers[:]
    yield
    level, logger.propagate, logger.filters[:], logger.handlers[:] = before
    logger.setLevel(level)


@pytest.mark.usefixtures("_logger_as_it_was")
def test_nemo_cannot_lower_the_level_itself(caplog):
    safe_import.import_nemo(Settings(nemo_log_level="ERROR"))
    from nemo.utils import logging as nemo_logging

    nemo_logging.set_verbosity(nemo_logging.DEBUG)  # as its transcribe() does
    nemo_logging.warning("not heard")
    nemo_logging.error("heard")
    assert [record.getMessage() for record in caplog.records if record.name == "nemo_logger"] == ["heard"]


@pytest.mark.usefixtures("_logger_as_it_was")
def test_again_changes_nothing_but_the_level(caplog):
    for level in ("ERROR", "ERROR", "WARNING"):
        safe_import.import_nemo(Settings(nemo_log_level=level))
    logger = logging.getLogger("nemo_logger")
    assert len([one for one in logger.filters if isinstance(one, safe_import._LevelFilter)]) == 1
    assert logger.handlers == [], "NeMo's own keep every line in memory for ever"
    logger.warning("heard now")
    assert "heard now" in caplog.text


@pytest.mark.parametrize("value", ["1", "true", "YES", " y "])
def test_refuses_an_environment_that_lets_weights_run_code(monkeypatch, value):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    with pytest.raises(ConfigurationError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD, which lets model files run code"):
        safe_import.import_nemo(Settings())


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_takes_one_that_does_not(monkeypatch, value):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    safe_import.check_safe_loading()
