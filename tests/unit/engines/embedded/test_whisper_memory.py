"""The memory that Whisper keeps for windows of many lengths."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ctranslate2")

from support import random_whisper_models as models

SHAPES = 60
MAX_GROWTH_MB = 10.0

ENCODE = """
import ctypes, sys
import diarist
import ctranslate2, numpy as np

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Mallinfo

model = ctranslate2.models.Whisper(sys.argv[1], device="cpu", compute_type="int8", intra_threads=1)

def used_after(lengths):
    for frames in lengths:
        model.encode(ctranslate2.StorageView.from_array(np.zeros((1, 80, frames), np.float32)))
    return library.mallinfo2().uordblks

first = int(sys.argv[2])
before = used_after(range(200, 200 + 2 * first, 2))
print((used_after(range(200 + 2 * first, 200 + 4 * first, 2)) - before) / 2**20)
"""


def growth_mb(folder: Path) -> float:
    """The memory that the second half of the lengths adds to that of the first, in use by any allocator of glibc."""
    folder = models.save_whisper(folder, models.WhisperShape(512, 8, 1, 1), ())
    found = subprocess.run(
        [sys.executable, "-c", ENCODE, str(folder), str(SHAPES)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return float(found.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this is not glibc")
def test_windows_of_ever_new_lengths_take_no_more_memory(tmp_path):
    assert growth_mb(tmp_path / "model") < MAX_GROWTH_MB
