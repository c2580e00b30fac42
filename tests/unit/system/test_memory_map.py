from __future__ import annotations

import mmap

import pytest

from diarist.system.memory_map import release_pages


@pytest.mark.parametrize("has_madvise", [True, False])
def test_pages_that_are_released_are_read_again(tmp_path, monkeypatch, has_madvise):
    if not has_madvise:
        monkeypatch.delattr(mmap, "MADV_DONTNEED")
    path = tmp_path / "samples"
    path.write_bytes(bytes(range(256)) * 64)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[10_000] == 10_000 % 256
        release_pages(mapped)
        assert mapped[:] == path.read_bytes()
