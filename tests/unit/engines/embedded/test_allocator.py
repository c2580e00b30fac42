"""Tests of the allocator's settings, by what the kernel maps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from diarist.engines.embedded import allocator

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")

PROGRAM = """
import ctypes, sys
from contextlib import ExitStack
from diarist.engines.embedded.allocator import heap_of_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
SIZE = 64 * 2**20

def page_faults():
    with open("/proc/self/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[7])

def faults_of_blocks():
    before = page_faults()
    for _ in range(10):
        block = libc.malloc(SIZE)
        ctypes.memset(block, 1, SIZE)
        libc.free(block)
    return page_faults() - before

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

outside = faults_of_blocks()
with heap_of_large_blocks:
    with heap_of_large_blocks:
        pass
    inside = faults_of_blocks()
    kept = resident()
    heap_of_large_blocks.release_free_memory()
    released = kept - resident()
after = faults_of_blocks()
print(outside, inside, after, released)
"""


def test_large_blocks_are_used_again_within_the_context_only():
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    outside, inside, after, released = map(int, output.split())
    assert inside < outside / 5
    assert after > outside / 2
    assert released > 32 * 2**20


def test_the_context_ends_when_its_body_raises():
    heap = allocator.HeapOfLargeBlocks()
    with pytest.raises(KeyError), heap:
        raise KeyError
    assert heap._users == 0
