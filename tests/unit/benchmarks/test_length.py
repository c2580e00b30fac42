"""The figures that ``benchmarks/length.py`` computes from its measurements."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("psutil")

import length
from diarist.types import Span, Turn


def turns(*rows):
    return [Turn(Span(start, end), who) for start, end, who in rows]


def test_the_estimate_at_half_is_compared_with_the_actual_time():
    assert length.Measurements(reports=[(2.0, 0.2), (6.0, 0.6), (9.0, 0.9)], wall=10.0).eta_ratio == pytest.approx(1.0)
    assert length.Measurements(reports=[(2.0, 0.5)], wall=10.0).eta_ratio == pytest.approx(0.25)
    assert math.isnan(length.Measurements(reports=[(2.0, 0.4), (10.0, 1.0)], wall=10.0).eta_ratio)


def test_progress_that_falls_is_not_monotonic():
    assert length.Measurements(reports=[(1.0, 0.2), (2.0, 0.2), (3.0, 0.4)]).monotonic
    assert not length.Measurements(reports=[(1.0, 0.2), (2.0, 0.1)]).monotonic


def test_a_label_that_changes_to_another_speaker_is_detected():
    truth = turns((0, 4, "ann"), (4, 8, "bob"), (10, 14, "ann"), (14, 18, "bob"))
    found = turns((0, 4, "A"), (4, 7, "B"), (7, 8, "A"), (10, 14, "B"), (14, 18, "B"))
    assert length.labels(truth, found, 0, 10) == {"ann": "A", "bob": "B"}
    assert length.labels(truth, found, 10, 20) == {"ann": "B", "bob": "B"}
    assert length.labels(truth, found, 30, 40) == {}
