from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diarist.models import ModelStore, load_catalog

START = """
import json, os, sys
opened = []
folder = os.environ["MODEL_DIR"]
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from diarist.jobs.workers.engine import load_engine
from diarist.settings import load_settings
load_engine(load_settings(), lambda models: None)
print(json.dumps([os.path.relpath(path, folder) for path in opened if path.startswith(folder)]))
"""
"""Loads the engine as a worker does, and prints which files in MODEL_DIR Python code opened; libraries open others."""


@pytest.mark.models
def test_a_start_with_models_in_place_reads_no_file_only_to_hash_it(model_store: ModelStore, tmp_path: Path) -> None:
    names = ("segmentation-3.0", "campplus", "whisper-base")
    for name in names:
        shutil.copytree(model_store.locate(name) if name == "whisper-base" else model_store.locate(name).parent,
                        tmp_path / name, ignore=shutil.ignore_patterns(".*"))  # fmt: skip

    def start() -> list[str]:
        environment = {**os.environ, "MODEL_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        opened: list[str] = json.loads(subprocess.check_output([sys.executable, "-c", START], env=environment))
        return [path for path in opened if not path.endswith("model.json") and ".hashes.json" not in path]

    # Python code divides the graph in two, and reads the shape of Whisper from the names of its variables.
    to_load = ["segmentation-3.0/model.onnx", "whisper-base/config.json", "whisper-base/model.bin"]
    first, second = start(), start()
    files = [f"{name}/{file.name}" for name in names for file in load_catalog()[name].files]
    assert sorted(first) == sorted([*files, "campplus/model.onnx", "segmentation-3.0/model.onnx", *to_load])
    assert second == to_load
