"""What a killed service leaves in TEMP_AUDIO_DIR goes at the next start; what others have there stays."""

from __future__ import annotations

import os
import time

from diarist.api.upload import SWEEP_AGE_S, TEMP_PREFIX, sweep


def test_only_old_uploads_are_removed(tmp_path):
    old = tmp_path / f"{TEMP_PREFIX}old"
    young = tmp_path / f"{TEMP_PREFIX}young"
    foreign = tmp_path / "holiday.wav"
    long_ago = time.time() - SWEEP_AGE_S - 60
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (long_ago, long_ago))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted((young, foreign))
