"""What contributors and build machines run agrees with what the project says of itself. Nothing here runs a tool."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]

ACTIONS = {"actions/checkout": "v4", "actions/setup-python": "v5", "actions/cache": "v4"}
"""Major versions that exist."""

OF_HOOKS_ALONE = {"pre-commit-hooks"}
"""What only hooks need, so that constraints.txt does not have it."""


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def supported() -> list[str]:
    prefix = "Programming Language :: Python :: 3."
    return sorted("3." + line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix))


def requirements() -> Iterator[Requirement]:
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        yield from map(Requirement, lines)


def job(name: str = "test") -> dict[str, Any]:
    found: dict[str, Any] = WORKFLOW["jobs"][name]
    return found


class TestHooks:
    def test_nothing_is_cloned(self) -> None:
        assert [repo["repo"] for repo in HOOKS] == ["local"]

    def test_versions_are_those_of_constraints_txt(self) -> None:
        needed = [Requirement(line) for hook in HOOKS[0]["hooks"] for line in hook["additional_dependencies"]]
        assert {need.name for need in needed} == {"ruff"} | OF_HOOKS_ALONE
        for need in needed:
            (pin,) = need.specifier
            assert pin.operator == "=="
            assert need.name in OF_HOOKS_ALONE or pin.version == pins()[need.name]

    @pytest.mark.parametrize(
        "wanted",
        ["ruff-check", "ruff-format", "end-of-file-fixer", "trailing-whitespace", "check-yaml", "check-toml"],
    )
    def test_each_kind_of_slip_has_its_hook(self, wanted: str) -> None:
        assert wanted in {hook["id"] for hook in HOOKS[0]["hooks"]}

    def test_large_files_are_those_over_500_kb(self) -> None:
        (large,) = (hook for hook in HOOKS[0]["hooks"] if hook["id"] == "check-added-large-files")
        assert "--maxkb=500" in large["entry"].split()


class TestWorkflow:
    def test_it_runs_what_a_developer_runs(self) -> None:
        assert job()["steps"][-1] == {"run": ".ci/run"}
        run = (ROOT / ".ci/run").read_text("utf-8")
        assert re.findall(r"^make .*$", run, re.MULTILINE) == ["make lint", "make test"]

    def test_the_whole_suite_runs_on_the_oldest_python_and_on_a_newer_one(self) -> None:
        oldest, newer = job()["strategy"]["matrix"]["python"]
        assert oldest == supported()[0]
        assert newer in supported()[1:]
        assert job()["strategy"]["fail-fast"] is False

    def test_every_python_is_tried_on_every_system(self) -> None:
        matrix = job("systems")["strategy"]["matrix"]
        assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
        assert set(supported()) <= set(matrix["python"])
        assert job("systems")["strategy"]["fail-fast"] is False

    def test_what_is_run_on_every_system_is_there(self) -> None:
        commands = " ".join(step.get("run", "") for step in job("systems")["steps"])
        paths = re.findall(r"tests/[\w/.]+", commands)
        assert "tests/e2e/test_without_posix.py" in paths
        assert [path for path in paths if not (ROOT / path).exists()] == []

    def test_the_makefile_takes_that_python_and_a_pytorch_of_its_version(self) -> None:
        assert job()["env"]["PYTHON"] == "python"
        (version,) = re.findall(r"^TORCH +\?= torch==(\S+)$", MAKEFILE, re.MULTILINE)
        assert job()["env"]["TORCH"].split()[-1] == f"torch=={version}+cpu"

    def test_it_may_only_read_and_ends_in_time(self) -> None:
        assert WORKFLOW["permissions"] == {"contents": "read"}
        assert {name: each["timeout-minutes"] for name, each in WORKFLOW["jobs"].items()} == {"test": 90, "systems": 45}
        assert all("permissions" not in each for each in WORKFLOW["jobs"].values())
        assert "cancel-in-progress" in WORKFLOW["concurrency"]

    def test_every_action_is_of_a_known_major_version(self) -> None:
        for each in WORKFLOW["jobs"].values():
            assert dict(step["uses"].split("@") for step in each["steps"] if "uses" in step) == ACTIONS

    def test_what_the_key_of_the_cache_is_made_of_is_there(self) -> None:
        for each in WORKFLOW["jobs"].values():
            (step,) = (step for step in each["steps"] if step.get("uses", "").startswith("actions/cache@"))
            patterns = re.findall(r"'([^']+)'", step["with"]["key"])
            assert patterns
            assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []


class TestProject:
    def test_classifiers_name_the_pythons_that_may_be_used(self) -> None:
        allowed = SpecifierSet(PROJECT["requires-python"])
        assert supported()
        assert all(version in allowed for version in supported())
        assert f"3.{int(supported()[0].removeprefix('3.')) - 1}" not in allowed
        assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + supported()[0].replace(".", "")

    def test_every_requirement_is_pinned_to_a_version_that_it_allows(self) -> None:
        of_gpu = set(PROJECT["optional-dependencies"]["gpu"])
        for need in requirements():
            if str(need) in {str(Requirement(line)) for line in of_gpu}:
                assert [pin.operator for pin in need.specifier] == ["=="], "constraints.txt has none of these"
            elif canonicalize_name(need.name) != PROJECT["name"]:
                assert need.specifier.contains(pins()[canonicalize_name(need.name)]), need

    def test_the_makefile_and_the_dockerfile_have_the_onnx_runtime_of_the_extra(self) -> None:
        (needed,) = (Requirement(line) for line in PROJECT["optional-dependencies"]["gpu"] if line.startswith("onnx"))
        build = f"{needed.name}{needed.specifier}"
        assert f"ONNXRUNTIME_GPU := {build}\n" in MAKEFILE
        for path in ("Dockerfile", "docs/gpu.md"):
            assert set(re.findall(r"onnxruntime-gpu==[\d.]+", (ROOT / path).read_text("utf-8"))) == {build}, path
        (onnxruntime,) = (need for need in requirements() if need.name == "onnxruntime")
        assert all(onnxruntime.specifier.contains(pin.version) for pin in needed.specifier)

    def test_the_types_of_the_package_are_there_to_use(self) -> None:
        assert "Typing :: Typed" in PROJECT["classifiers"]
        assert (ROOT / "src/diarist/py.typed").is_file()

    def test_the_addresses_are_of_one_place(self) -> None:
        urls = PROJECT["urls"]
        assert urls.keys() == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
        assert all(url.startswith(urls["Source"]) for url in urls.values())
        for name in ("Documentation", "Changelog"):
            assert (ROOT / urls[name].split("/main/")[1]).exists()

    def test_without_a_tag_the_version_is_that_of_the_next_release(self) -> None:
        assert PROJECT["dynamic"] == ["version"]
        sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
        assert sections[0] == "Unreleased"
        fallback = Version(PYPROJECT["tool"]["hatch"]["version"]["fallback-version"])
        assert fallback.is_devrelease
        assert fallback > Version(sections[1])

    def test_the_tools_of_the_build_are_those_of_the_tests(self) -> None:
        assert {str(Requirement(line)) for line in PYPROJECT["build-system"]["requires"]} <= set(
            map(str, requirements())
        )

    def test_the_sdist_has_every_file_of_the_repository(self) -> None:
        """tests/e2e/test_package.py builds it; this fails at once after a file was added to the top folder."""
        if not (ROOT / ".git").exists():
            pytest.skip("this is not a git repository")
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
        assert top <= set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"])


class TestRelease:
    WORKFLOW: ClassVar[dict[str, Any]] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))

    def steps(self) -> list[dict[str, Any]]:
        return [step for job in self.WORKFLOW["jobs"].values() for step in job["steps"]]

    def test_a_tag_starts_it(self) -> None:
        assert self.WORKFLOW[True] == {"push": {"tags": ["v[0-9]*"]}}, "YAML 1.1 reads the key `on` as true"

    def test_it_publishes_what_a_maintainer_builds(self) -> None:
        assert [step["run"] for step in self.steps() if ".ci/dist" in step.get("run", "")] == ["sh .ci/dist python"]
        assert "sh .ci/dist $(venv_python)\n" in MAKEFILE

    def test_each_job_may_do_only_what_it_has_to(self) -> None:
        assert self.WORKFLOW["permissions"] == {}
        assert {name: job.get("permissions", {}) for name, job in self.WORKFLOW["jobs"].items()} == {
            "build": {"contents": "read", "id-token": "write", "attestations": "write"},
            "try": {},
            "index": {"id-token": "write"},
            "page": {"contents": "write"},
        }
        assert self.WORKFLOW["jobs"]["index"]["environment"]["name"] == "pypi"
        assert all("timeout-minutes" in job for job in self.WORKFLOW["jobs"].values())

    def test_nothing_is_published_before_it_was_installed_on_every_python(self) -> None:
        jobs = self.WORKFLOW["jobs"]
        assert {name: job.get("needs") for name, job in jobs.items()} == {
            "build": None, "try": "build", "index": "try", "page": "index",
        }  # fmt: skip
        assert jobs["try"]["strategy"]["matrix"]["python"] == supported()

    def test_every_action_is_of_a_known_major_version(self) -> None:
        used = dict(step["uses"].split("@") for step in self.steps() if "uses" in step)
        assert used == {
            "actions/checkout": "v4", "actions/setup-python": "v5", "actions/upload-artifact": "v4",
            "actions/download-artifact": "v4", "actions/attest-build-provenance": "v2", "actions/attest-sbom": "v2",
            "pypa/gh-action-pypi-publish": "release/v1",
        }  # fmt: skip

    def test_its_tools_are_pinned(self) -> None:
        lines = (ROOT / ".ci/dist-requirements.txt").read_text("utf-8").splitlines()
        needed = [Requirement(line) for line in lines if not line.startswith("#")]
        assert {need.name for need in needed} == {"build", "cyclonedx-bom", "twine"}
        assert all([pin.operator for pin in need.specifier] == ["=="] for need in needed)


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
