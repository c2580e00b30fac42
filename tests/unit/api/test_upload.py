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
