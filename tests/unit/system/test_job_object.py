"""The structures of job objects have the layout that Windows expects. What is done with them runs only there."""

from __future__ import annotations

import ctypes

import pytest

from diarist.system.job_object import BasicLimits, ExtendedLimits, process_limits


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the offsets are those of 64-bit systems")
def test_the_layout_is_that_of_windows():
    assert {name: getattr(BasicLimits, name).offset for name, _ in BasicLimits._fields_} == {
        "PerProcessUserTimeLimit": 0,
        "PerJobUserTimeLimit": 8,
        "LimitFlags": 16,
        "MinimumWorkingSetSize": 24,
        "MaximumWorkingSetSize": 32,
        "ActiveProcessLimit": 40,
        "Affinity": 48,
        "PriorityClass": 56,
        "SchedulingClass": 60,
    }
    assert {name: getattr(ExtendedLimits, name).offset for name, _ in ExtendedLimits._fields_} == {
        "BasicLimitInformation": 0,
        "IoInfo": 64,
        "ProcessMemoryLimit": 112,
        "JobMemoryLimit": 120,
        "PeakProcessMemoryUsed": 128,
        "PeakJobMemoryUsed": 136,
    }
    assert ctypes.sizeof(ExtendedLimits) == 144


def test_the_limits_are_in_the_units_of_windows():
    limits = process_limits(memory_bytes=2**32, cpu_s=605)
    assert limits.ProcessMemoryLimit == 2**32
    assert limits.BasicLimitInformation.PerProcessUserTimeLimit == 605 * 10**7  # 100 ns
    assert limits.BasicLimitInformation.LimitFlags == 0x2502
