"""Tests of what all clustering steps share."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist.clustering.embeddings import renumber
from support.strategies import patient


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-3, 9)))
@patient
def test_renumber_keeps_the_partition(labels):
    renamed = renumber(labels)
    first = list(dict.fromkeys(renamed.tolist()))
    assert first == list(range(len(first)))
    assert np.array_equal(labels[:, None] == labels, renamed[:, None] == renamed)
