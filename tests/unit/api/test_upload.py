"""Received files, without a request."""

from __future__ import annotations

import pytest

from diarist.api.upload import UploadFile
from diarist.errors import StorageFull


def test_an_upload_leaves_free_what_must_stay_free(tmp_path):
    upload = UploadFile(tmp_path, 100, min_free_bytes=2**60)
    with pytest.raises(StorageFull, match="MIN_FREE_MB"):
        upload.write(b"RIFF")
    upload.close()
    assert list(tmp_path.iterdir()) == []


def test_a_complete_upload_is_whole_and_can_be_moved_away(tmp_path):
    upload = UploadFile(tmp_path, 100)
    upload.write(b"RIFF")
    assert upload.complete().read_bytes() == b"RIFF"
    upload.path.rename(tmp_path / "recording")
    upload.close()
    assert [path.name for path in tmp_path.iterdir()] == ["recording"]


def test_an_upload_that_nobody_took_is_removed(tmp_path):
    upload = UploadFile(tmp_path, 100)
    upload.write(b"RIFF")
    upload.complete()
    upload.close()
    assert list(tmp_path.iterdir()) == []
