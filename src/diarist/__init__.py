"""Diarist transcribes recordings and says who speaks when."""

import os
from importlib.metadata import version

# Since version 1.31, ONNX Runtime sends telemetry unless this is set before it is first loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NumPy's threads busy-wait: with several of them, clustering an hour takes twenty times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# oneDNN, which runs Whisper's convolutions in CTranslate2, keeps the code that it generates for each shape of input.
# By default it keeps that of 1,024 shapes, up to a megabyte each, and most recordings bring new ones.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

__version__ = version("diarist")
