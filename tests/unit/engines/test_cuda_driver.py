"""Tests of the CUDA driver API's callers, against a driver in C that has the signatures of NVIDIA's own."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from diarist.engines.cuda_driver import DriverError, Gpu, free_memory, usable_gpus

DRIVER = """
#include <stddef.h>
#include <string.h>
typedef int CUresult; typedef int CUdevice; typedef void *CUcontext;
static int contexts, pushed;
CUresult cuInit(unsigned flags) { return flags ? 1 : INIT; }
CUresult cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
CUresult cuDeviceGetCount(int *count) { *count = 2; return 0; }
CUresult cuDeviceGet(CUdevice *device, int index) { if (index > 1) return 101; *device = 40 + index; return 0; }
CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    strncpy(name, device == 40 ? "NVIDIA Big" : "NVIDIA Small", size); return 0; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) { *bytes = (device - 39) * 6000000000ull; return 0; }
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) { *value = attribute - 75 + 8; return 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    contexts++; *context = (CUcontext)(size_t)(0x700000000000ull + device); return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { contexts--; return 0; }
CUresult cuCtxPushCurrent_v2(CUcontext context) { pushed = (int)((size_t)context - 0x700000000000ull); return 0; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) { pushed = 0; *context = 0; return 0; }
CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (!pushed) return 201; *free = 5000000000ull + pushed; *total = 6000000000ull; return FREE; }
CUresult cuGetErrorString(CUresult error, const char **text) {
    if (error == 999) return 1; *text = "the reason"; return 0; }
int open_contexts(void) { return contexts; }
"""


@pytest.fixture
def make_driver(tmp_path: Path) -> Callable[..., ctypes.CDLL]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "driver.c").write_text(DRIVER)

    def make(init: int = 0, version: int = 12_080, free: int = 0) -> ctypes.CDLL:
        path = tmp_path / f"libcuda-{init}-{version}-{free}.so"
        macros = (f"-DINIT={init}", f"-DVERSION={version}", f"-DFREE={free}")
        subprocess.run([compiler, "-shared", "-fPIC", *macros, "-o", path, tmp_path / "driver.c"], check=True)
        return ctypes.CDLL(str(path))

    return make


def test_the_gpus_are_described(make_driver):
    assert usable_gpus(make_driver()) == (
        Gpu(0, "NVIDIA Big", 6_000_000_000, (8, 9)), Gpu(1, "NVIDIA Small", 12_000_000_000, (8, 9))
    )  # fmt: skip
    assert usable_gpus(make_driver())[1].label == "cuda:1 (NVIDIA Small)"


def test_the_free_memory_is_that_of_the_gpu_and_no_context_is_left(make_driver):
    driver = make_driver()
    assert [free_memory(index, driver) for index in (0, 1)] == [5_000_000_040, 5_000_000_041]
    assert driver.open_contexts() == 0


def test_a_failure_is_reported_and_leaves_no_context(make_driver):
    driver = make_driver(free=2)
    with pytest.raises(DriverError, match=r"fails in cuMemGetInfo_v2 \(error 2: the reason\)"):
        free_memory(0, driver)
    assert driver.open_contexts() == 0
    with pytest.raises(DriverError, match="cuDeviceGet"):
        free_memory(2, driver)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": 100}, "lets this process use no GPU"),
        ({"init": 803}, r"cannot be used \(error 803: the reason\)"),
        ({"init": 999}, r"cannot be used \(error 999\)"),
        ({"version": 11_040}, r"supports CUDA 11\.4, and CUDA 12 is needed"),
    ],
)
def test_a_driver_that_cannot_be_used_says_why(make_driver, changes, message):
    with pytest.raises(DriverError, match=message):
        usable_gpus(make_driver(**changes))


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has the driver")
def test_a_driver_that_is_not_installed():
    with pytest.raises(DriverError, match="driver is not installed, or this container cannot use it"):
        usable_gpus()
