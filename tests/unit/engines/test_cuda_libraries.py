"""Tests of loading NVIDIA's libraries from their wheels: the real ones are not needed to see which file is loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diarist.engines.cuda_libraries import load_libraries

PROGRAM = """
import ctypes, sys
from diarist.engines.cuda_libraries import load_libraries
print(*load_libraries(("libdiarist_wheel.so.12", "libdiarist_absent.so.9", "libdiarist_damaged.so.1")))
print(ctypes.CDLL("libdiarist_wheel.so.12").number())
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of packages with two wheels: a library that can be loaded, and one that is damaged."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    for name in ("cublas", "cudnn"):
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "__init__.py").touch()
    (tmp_path / "source.c").write_text("int number(void) { return 42; }")
    name = "libdiarist_wheel.so.12"
    path = tmp_path / "nvidia" / "cublas" / "lib" / name
    subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", path, tmp_path / "source.c"], check=True)
    (tmp_path / "nvidia" / "cudnn" / "lib" / "libdiarist_damaged.so.1").write_bytes(b"no library")
    return tmp_path


def test_a_library_in_a_wheel_is_found_by_its_name_afterwards(wheels):
    program = f"import sys; sys.path.insert(0, {str(wheels)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["libdiarist_absent.so.9 libdiarist_damaged.so.1", "42"]


def test_a_library_of_the_system_needs_no_wheel():
    name = "libc.so.6" if sys.platform == "linux" else "libSystem.dylib"
    assert load_libraries((name,)) == ()
