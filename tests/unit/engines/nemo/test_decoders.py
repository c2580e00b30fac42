"""Pieces from frames."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.nemo

BLANK = 9


def collapse_frames(pieces, sure=None):
    from diarist.engines.nemo.decoders import collapse_frames

    sure = np.linspace(0.1, 0.9, len(pieces)) if sure is None else sure
    found = collapse_frames(np.array(pieces, dtype=np.int64), np.array(sure, dtype=np.float32), BLANK, 0.5)
    return [(token.id, token.start, token.end, round(token.confidence, 6)) for token in found]


def test_repetitions_are_one_and_blanks_part_them():
    sure = [0.1, 0.4, 0.2, 0.9, 0.3, 0.3, 0.5]
    assert collapse_frames([3, 3, 4, BLANK, 4, BLANK, 0], sure) == [
        (3, 0.0, 1.0, 0.4), (4, 1.0, 1.5, 0.2), (4, 2.0, 2.5, 0.3), (0, 3.0, 3.5, 0.5),
    ]  # fmt: skip


def test_nothing_but_blanks():
    assert collapse_frames([]) == []
    assert collapse_frames([BLANK]) == []
    assert collapse_frames([BLANK] * 5) == []


def test_one_piece_for_ever_is_one_token():
    assert collapse_frames([2] * 4, [0.5, 0.7, 0.6, 0.1]) == [(2, 0.0, 2.0, 0.7)]
