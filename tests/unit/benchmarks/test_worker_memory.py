"""The table and the plot that ``benchmarks/worker_memory.py`` makes of its measurements."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET

import psutil
import pytest

import worker_memory
from worker_memory import Sample

FLAT = [Sample(upload, 100.0, 300.0 + min(upload, 100), 200.0) for upload in range(1, 501)]
GROWING = [Sample(upload, 100.0, 300.0 + upload / 4, 200.0) for upload in range(1, 501)]


def test_the_growth_is_that_after_the_warm_up():
    assert worker_memory.slope_kb(FLAT, "worker_mb") == pytest.approx(0.0, abs=1e-6)
    assert worker_memory.slope_kb(GROWING, "worker_mb") == pytest.approx(256.0)


def test_the_table_shows_the_growth():
    lines = worker_memory.table(GROWING).splitlines()
    assert lines[2] == "| 1 | 100.0 | 300.2 | 200.0 |"
    assert "| +256.0 |" in lines[-1]
    assert len(lines) == 15


def test_the_plot_is_valid_and_has_every_sample():
    root = ET.fromstring(worker_memory.plot(FLAT))
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert [len(each.attrib["points"].split()) for each in lines] == [500, 500, 500]


def test_the_memory_of_a_process_is_read():
    own = psutil.Process(os.getpid())
    read = worker_memory.read_memory(7, own, own)
    assert read.upload == 7
    assert read.worker_mb > read.worker_anonymous_mb > 1
