"""Environment variables that libraries read when they are first loaded in a process that runs models.

Only processes of Diarist itself have them: the command line, the workers, and the process that the Python library
starts for a model. The process of a program that imports ``diarist`` is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # Since version 1.31, ONNX Runtime sends telemetry unless this is set before it is first loaded.
        "ORT_DISABLE_TELEMETRY": "1",
        # NumPy's threads busy-wait: with several of them, clustering an hour takes twenty times the processor time.
        "OPENBLAS_NUM_THREADS": "1",
        # oneDNN, which runs Whisper's convolutions in CTranslate2, keeps the code that it generates for each shape of
        # input. By default it keeps that of 1,024 shapes, up to a megabyte each, and most recordings bring new ones.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    }
)
"""The variables, and their values unless they are set already."""


def set_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that are not set. This has to come before the libraries are loaded."""
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
