from __future__ import annotations

import os

import pytest

from diarist.system.file_opening import open_to_read


def test_a_file_is_opened_for_its_bytes_alone(tmp_path):
    path = tmp_path / "recording"
    path.write_bytes(b"a\r\nb\x1ac")
    descriptor = open_to_read(path)
    try:
        assert os.read(descriptor, 99) == b"a\r\nb\x1ac"
        assert not os.get_inheritable(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")
        path.rename(tmp_path / "moved")
        (tmp_path / "moved").unlink()
    finally:
        os.close(descriptor)


def test_opening_a_named_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.close(open_to_read(tmp_path / "pipe"))


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_to_read(tmp_path / "missing")
