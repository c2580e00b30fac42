"""Nothing is told to anybody."""

from __future__ import annotations

import os
import subprocess
import sys


def test_onnx_runtime_leaves_no_mark_and_reports_to_nobody(tmp_path):
    """It keeps an identity of the machine, and what it is about to send, below the user's home."""
    # On what it takes for a machine of continuous integration it is silent by itself.
    quiet = ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    code = (
        "from diarist.inference_environment import set_defaults; set_defaults()\n"
        "import onnxruntime; onnxruntime.get_available_providers(); onnxruntime.SessionOptions()"
    )
    for loaded, expected in ((code, []), ("import onnxruntime", None)):
        home = tmp_path / str(expected)
        home.mkdir()
        subprocess.run(
            [sys.executable, "-c", loaded], env=environment | {"HOME": str(home)}, check=True, timeout=60
        )  # fmt: skip
        left = [path for path in home.rglob("*") if path.is_file()]
        assert left == [] if expected == [] else left, "what is looked for can be seen where it is not forbidden"
