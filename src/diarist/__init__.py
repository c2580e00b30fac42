"""Diarist: a recording in, who said what, when, out."""

import os
from importlib.metadata import version

# Since 1.31 ONNX Runtime reports to its makers unless it is told not to before it is loaded, whoever loads it first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = version("diarist")
