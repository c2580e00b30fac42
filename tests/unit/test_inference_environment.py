from __future__ import annotations

import os
import subprocess
import sys

from diarist.inference_environment import DEFAULTS, set_defaults


def test_variables_that_are_set_are_left_as_they_are():
    environment = {"OPENBLAS_NUM_THREADS": "4", "PATH": "/bin"}
    set_defaults(environment)
    assert environment == {**DEFAULTS, "OPENBLAS_NUM_THREADS": "4", "PATH": "/bin"}


def test_the_command_line_sets_them_before_numpy_is_loaded(tmp_path):
    """An audit hook sees NumPy's first import, at which its threads are created."""
    program = f"""
import os, sys
def check(event, values):
    if event == "import" and values[0] in ("numpy", "onnxruntime") and "ORT_DISABLE_TELEMETRY" not in os.environ:
        os.write(2, b"too late")
        os._exit(9)
sys.addaudithook(check)
from diarist.cli import main
main(["transcribe", {str(tmp_path / "none.wav")!r}, "--offline"])
"""
    environment = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "none.wav" in result.stderr
