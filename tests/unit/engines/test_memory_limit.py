"""Tests of batches that fit into the memory, with functions that fail as the libraries do."""

from __future__ import annotations

import logging

import pytest

from diarist.engines.memory_limit import MemoryLimit, is_out_of_memory
from diarist.errors import EngineUnavailable

CTRANSLATE2 = RuntimeError("CUDA failed with error out of memory")
CUBLAS = RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED")
GPU = "cuda:0 (NVIDIA Small)"


def onnxruntime_error(text: str) -> Exception:
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    return RuntimeException(text)


@pytest.mark.parametrize("error", [CTRANSLATE2, CUBLAS, MemoryError()])
def test_the_batch_size_is_halved_until_it_fits_and_stays_so(caplog, error):
    sizes: list[int] = []

    def run(part: list[int]) -> list[int]:
        sizes.append(len(part))
        if len(part) > 3:
            raise error
        return [-item for item in part]

    limit = MemoryLimit(16, GPU)
    with caplog.at_level(logging.WARNING):
        assert limit.run(list(range(13)), run) == [-item for item in range(13)]
    assert sizes == [13, 6, 3, 3, 3, 3, 1]
    assert limit.batch_size == 3
    assert "The memory of cuda:0 (NVIDIA Small) ran out; continuing with a batch size of 3" in caplog.text
    sizes.clear()
    limit.run(list(range(4)), run)
    assert sizes == [3, 1], "the next recording starts with what fits"


def test_a_window_that_does_not_fit_alone_says_what_to_do():
    def run(_part: list[int]) -> list[int]:
        raise CTRANSLATE2

    expected = r"memory of cuda:0 \(NVIDIA Small\) is too small .*smaller model.*set DEVICE to another device"
    with pytest.raises(EngineUnavailable, match=expected):
        MemoryLimit(4, GPU).run([1, 2, 3], run)


def test_other_errors_are_passed_on():
    def run(_part: list[int]) -> list[int]:
        raise RuntimeError("an illegal memory access was encountered")

    limit = MemoryLimit(4, GPU)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        limit.run([1, 2], run)
    assert limit.batch_size == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (onnxruntime_error("Failed to allocate memory for requested buffer of size 1048576"), True),
        (onnxruntime_error("CUDA failure 2: out of memory ; GPU=0"), True),
        (onnxruntime_error("Got invalid dimensions for input"), False),
        (ValueError("out of memory"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_errors_of_libraries(error, expected):
    assert is_out_of_memory(error) == expected
