"""Reads at an offset: with ``os.pread``, and as on systems without it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from diarist.system import positional_read
from diarist.system.positional_read import pread

CONTENT = bytes(range(256)) * 1_000


@pytest.fixture(params=[True, False], ids=["pread", "seek"])
def descriptor(request, tmp_path, monkeypatch):
    monkeypatch.setattr(positional_read, "_HAS_PREAD", request.param)
    (tmp_path / "file").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    os.lseek(descriptor, 7, os.SEEK_SET)
    yield descriptor
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
    os.close(descriptor)


@pytest.mark.parametrize(
    ("count", "offset"), [(16, 0), (10, 300), (1_000, len(CONTENT) - 3), (4, len(CONTENT)), (0, 5)]
)
def test_the_bytes_at_an_offset_are_read(descriptor, count, offset):
    assert pread(descriptor, count, offset) == CONTENT[offset : offset + count]


def test_an_offset_that_is_none_is_an_error(descriptor):
    with pytest.raises(OSError, match="Invalid argument"):
        pread(descriptor, 4, -1)


def test_threads_do_not_disturb_each_other(descriptor):
    offsets = [(997 * number) % (len(CONTENT) - 64) for number in range(2_000)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda offset: pread(descriptor, 64, offset), offsets))
    assert found == [CONTENT[offset : offset + 64] for offset in offsets]
