"""Diarist: a recording in, who said what, when, out."""

import os
from importlib.metadata import version

# Since 1.31 ONNX Runtime reports to its makers unless it is told not to before it is loaded, whoever loads it first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NumPy's threads wait by spinning: clustering an hour takes twenty times the processor time with several of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = version("diarist")
