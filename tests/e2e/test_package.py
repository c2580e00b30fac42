"""The sdist and the wheel as they are published: what they contain, and that the wheel works outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from diarist import __version__

ROOT = Path(__file__).parents[2]
SITE = Path(pytest.__file__).parents[1]
VERSION = "1.2.3"

pytestmark = pytest.mark.slow


def tracked(*options: str) -> set[str]:
    """Return the files that ``git ls-files`` lists with these options."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def about_to_be_added() -> set[str]:
    return tracked("--others", "--exclude-standard")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sdist, and of the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        env=os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": VERSION},
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"diarist-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment with the wheel. The dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    site = subprocess.run(
        [str(programs / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.strip()  # fmt: skip
    (Path(site) / "dependencies.pth").write_text(f"{SITE}\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-index", "--no-deps",
         "--ignore-installed", str(wheel)],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    return programs


def run(program: Path, *arguments: str, folder: Path) -> str:
    """Return what the program prints in ``folder``. It does not see the source tree."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(program), *arguments], cwd=folder, env=known, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestContents:
    def test_the_sdist_is_the_repository(self, built: Path) -> None:
        with tarfile.open(built / f"diarist-{VERSION}.tar.gz") as archive:
            names = {name.removeprefix(f"diarist-{VERSION}/") for name in archive.getnames()}
        assert tracked() <= names
        assert names - {"PKG-INFO"} <= tracked() | about_to_be_added()

    def test_the_wheel_is_the_package_with_the_configurations(self, wheel: Path) -> None:
        names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        package = {name.removeprefix("src/") for name in tracked("src")}
        configurations = {f"diarist/{name}" for name in tracked("conf")}
        assert package | configurations <= names
        assert names - configurations <= package | {name.removeprefix("src/") for name in about_to_be_added()}
        assert {"diarist/py.typed", "diarist/models/catalog.toml", "diarist/conf/diar_infer_general.yaml"} <= names

    def test_the_wheel_has_the_licences(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        for name in ("LICENSE", "NOTICE.md"):
            assert f"diarist-{VERSION}.dist-info/licenses/{name}" in names

    def test_the_version_is_that_of_the_release(self, wheel: Path) -> None:
        text = zipfile.ZipFile(wheel).read(f"diarist-{VERSION}.dist-info/METADATA").decode()
        assert Parser().parsestr(text)["Version"] == VERSION
        assert __version__ != VERSION, "another version is installed here, so that the tests below could not fail"


class TestInstalled:
    def test_it_starts_in_an_empty_folder(self, programs: Path, tmp_path: Path) -> None:
        assert run(programs / "diarist", "--help", folder=tmp_path).startswith("Usage: diarist ")
        told = run(programs / "python", "-m", "diarist", "--version", folder=tmp_path)
        assert told == f"diarist {VERSION}\n"
        assert list(tmp_path.iterdir()) == []

    def test_it_is_the_wheel_that_runs(self, programs: Path, tmp_path: Path) -> None:
        told = "import diarist; print(diarist.__file__, diarist.__version__)"
        path, version = run(programs / "python", "-c", told, folder=tmp_path).split()
        assert Path(path).is_relative_to(programs.parent)
        assert version == VERSION

    def test_the_tables_of_the_job_store_are_made(self, programs: Path, tmp_path: Path) -> None:
        assert "dk_" in run(programs / "diarist", "keys", "create", "somebody", folder=tmp_path)

    @pytest.mark.models
    @pytest.mark.usefixtures("model_store")
    def test_it_transcribes_as_the_source_tree_does(
        self, programs: Path, sample_recording: Path, tmp_path: Path
    ) -> None:
        arguments = ("transcribe", str(sample_recording), "--offline", "--format", "json")
        transcript = json.loads(run(programs / "diarist", *arguments, folder=tmp_path))
        in_tree = subprocess.run(
            [sys.executable, "-m", "diarist", *arguments], cwd=tmp_path, capture_output=True, check=True, timeout=180
        ).stdout
        assert transcript == json.loads(in_tree)
        assert len(transcript["conversation"]) > 5
