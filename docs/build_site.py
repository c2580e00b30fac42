"""Builds the documentation and checks it: ``python docs/build_site.py build/site``.

Zensical is run on a copy of the pages: it keeps its cache in the folder ``.cache`` beside ``mkdocs.yml``, which here
contains recordings and environments, and deletes the whole folder with ``--clean``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from check_site import faults

ROOT = Path(__file__).parent.parent


def build(target: Path) -> tuple[str, ...]:
    """Build the site into ``target``, which is replaced, and return messages about what is wrong with it."""
    with TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copy(ROOT / "mkdocs.yml", project)
        shutil.copytree(ROOT / "docs", project / "docs")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        built = subprocess.run(
            command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, encoding="utf-8"
        )
        if built.returncode or "warning" in built.stdout.lower():
            return (built.stdout,)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(project / "build" / "site", target)
    return tuple(faults(target))


if __name__ == "__main__":
    site = Path(sys.argv[1])
    found = build(site)
    print(*found or (f"The documentation is in {site}: open {site / 'index.html'} in a browser",), sep="\n")  # noqa: T201
    sys.exit(bool(found))
