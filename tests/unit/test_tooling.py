"""What contributors and build machines run agrees with what the project says of itself. Nothing here runs a tool."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


class TestMakefile:
    def test_every_target_is_listed_with_what_it_does(self) -> None:
        (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
        told = re.findall(r"^([a-z-]+):.*?## \S", MAKEFILE, re.MULTILINE)
        assert sorted(told) == sorted(phony.split())

    def test_help_is_what_comes_of_make_alone(self) -> None:
        assert re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)[0] == "help"

    def test_the_fast_tests_leave_out_markers_that_exist(self) -> None:
        (left_out,) = re.findall(r"^FAST := not \((.+)\)$", MAKEFILE, re.MULTILINE)
        known = {line.split(":")[0] for line in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]}
        assert set(left_out.split(" or ")) == known
