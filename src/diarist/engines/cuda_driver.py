"""NVIDIA's driver, asked through its C interface: the GPUs that a process may use, and their free memory.

The functions are those of the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api/). It numbers GPUs as
CTranslate2 and ONNX Runtime do, after ``CUDA_VISIBLE_DEVICES``, and needs no library but the driver's own.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MIN_CUDA = (12, 0)
"""The libraries of the extra ``gpu`` are of CUDA 12, and run with every driver for CUDA 12 or newer."""

SUCCESS = 0
NO_DEVICE = 100
"""``CUDA_ERROR_NO_DEVICE``: there is no GPU, or none is visible to this process."""

COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76
"""Numbers of device attributes (``CUdevice_attribute``)."""

NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use."""

    index: int
    """Its number among the visible GPUs, from 0."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]

    @property
    def label(self) -> str:
        """The number and the name, as they are shown to users."""
        return f"cuda:{self.index} ({self.name})"


class DriverError(Exception):
    """The driver is missing, too old, or does not let this process use the GPUs."""


def usable_gpus(library: Any = None) -> tuple[Gpu, ...]:
    """Return the visible GPUs in order of their numbers.

    Args:
        library: The driver's library; tests set it.

    Raises:
        DriverError: The driver cannot be used. The message says why.
    """
    driver = _initialized(library)
    version = ctypes.c_int()
    _check(driver, "cuDriverGetVersion", ctypes.byref(version))
    found = (version.value // 1000, version.value % 1000 // 10)
    if found < MIN_CUDA:
        supported = ".".join(map(str, found))
        raise DriverError(
            f"NVIDIA's driver supports CUDA {supported}, and CUDA {MIN_CUDA[0]} is needed (version 525 or newer)"
        )
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", ctypes.byref(count))
    return tuple(_describe(driver, index) for index in range(count.value))


def free_memory(index: int, library: Any = None) -> int:
    """Return the memory of a GPU that no program has allocated, in bytes.

    Raises:
        DriverError: The driver cannot be used.
    """
    driver = _initialized(library)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _primary_context(driver, index):
        _check(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def _initialized(library: Any) -> Any:
    driver = library or _load()
    result = driver.cuInit(0)
    if result == NO_DEVICE:
        raise DriverError("NVIDIA's driver lets this process use no GPU")
    if result != SUCCESS:
        raise DriverError(f"NVIDIA's driver cannot be used ({_reason(driver, result)})")
    return driver


def _load() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise DriverError(f"NVIDIA's driver is not installed, or this container cannot use it ({error})") from error


def _describe(driver: Any, index: int) -> Gpu:
    device = _device(driver, index)
    name = ctypes.create_string_buffer(NAME_BYTES)
    _check(driver, "cuDeviceGetName", name, NAME_BYTES, device)
    memory = ctypes.c_size_t()
    _check(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = []
    for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _check(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(index, name.value.decode(errors="replace"), memory.value, (capability[0], capability[1]))


def _device(driver: Any, index: int) -> ctypes.c_int:
    device = ctypes.c_int()
    _check(driver, "cuDeviceGet", ctypes.byref(device), index)
    return device


@contextmanager
def _primary_context(driver: Any, index: int) -> Iterator[None]:
    """Make the context current that all libraries of this process share: the free memory is asked within one."""
    device, context = _device(driver, index), ctypes.c_void_p()
    _check(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        _check(driver, "cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            _check(driver, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    finally:
        _check(driver, "cuDevicePrimaryCtxRelease_v2", device)


def _check(driver: Any, function: str, *arguments: Any) -> None:
    result = getattr(driver, function)(*arguments)
    if result != SUCCESS:
        raise DriverError(f"NVIDIA's driver fails in {function} ({_reason(driver, result)})")


def _reason(driver: Any, result: int) -> str:
    text = ctypes.c_char_p()
    if driver.cuGetErrorString(result, ctypes.byref(text)) == SUCCESS and text.value:
        return f"error {result}: {text.value.decode(errors='replace')}"
    return f"error {result}"
