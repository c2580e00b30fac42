"""The next start removes what a killed service left in TEMP_AUDIO_DIR, and keeps the files of others."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from diarist.api.upload import SWEEP_AGE, sweep
from diarist.scratch import UPLOAD_PREFIX


def test_only_old_uploads_are_removed(tmp_path):
    old = tmp_path / f"{UPLOAD_PREFIX}old"
    young = tmp_path / f"{UPLOAD_PREFIX}young"
    foreign = tmp_path / "holiday.wav"
    long_ago = (datetime.now(UTC) - SWEEP_AGE - timedelta(minutes=1)).timestamp()
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (long_ago, long_ago))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted((young, foreign))
