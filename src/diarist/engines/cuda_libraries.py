"""NVIDIA's libraries for CUDA 12, loaded from the wheels of the extra ``gpu`` so that no search path has to be set.

A library that is loaded once is found by its name from then on, so CTranslate2 and ONNX Runtime find these.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

CUBLAS = ("libcublasLt.so.12", "libcublas.so.12")
"""What CTranslate2 4.8 needs, in an order in which each comes after those that it needs. It has no cuDNN anymore."""

CUDA = ("libcudart.so.12", *CUBLAS, "libcurand.so.10", "libcufft.so.11", "libnvrtc.so.12", "libcudnn.so.9")
"""What onnxruntime-gpu 1.26 needs, in such an order. cuDNN itself loads NVRTC by its name."""


def load_libraries(names: Sequence[str]) -> tuple[str, ...]:
    """Load libraries from the wheels, or from where the system finds them, and return the names of the missing ones."""
    folders = tuple(_wheel_folders())
    return tuple(name for name in names if not _load(name, folders))


def _load(name: str, folders: Sequence[Path]) -> bool:
    in_wheels = [str(folder / name) for folder in folders if (folder / name).is_file()]
    for path in (*in_wheels, name):
        try:
            ctypes.CDLL(path)
        except OSError:  # absent, of another architecture, or without a library of its own
            continue
        return True
    return False


def _wheel_folders() -> Iterator[Path]:
    """Yield the folders of libraries in NVIDIA's wheels, which all lie in the package ``nvidia``."""
    package = importlib.util.find_spec("nvidia")
    for location in (package.submodule_search_locations or ()) if package else ():
        yield from sorted(Path(location).glob("*/lib"))
