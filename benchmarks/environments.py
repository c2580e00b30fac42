"""Create a virtual environment for each system that Diarist is compared with, apart from the project's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


@dataclass
class NotInstalled(Exception):
    """Raised if a system cannot be installed on this machine; ``why`` is the last line of pip's output."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} cannot be installed: {self.why}"


def prepare(name: str, folder: Path, torch: str) -> Path:
    """Return the Python of the environment ``folder / name``, which is created from ``peers/NAME.txt`` if necessary.

    Args:
        name: The name of the system.
        folder: The folder that contains all environments.
        torch: The arguments for pip, options and requirement, that install PyTorch if ``NAME.txt`` says that it is
            needed.

    Raises:
        NotInstalled: If pip fails.
    """
    requirements = PEERS / f"{name}.txt"
    home = folder / name
    python, stamp = home / "bin" / "python", home / "ready"
    digest = hashlib.sha256(requirements.read_bytes() + torch.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    text = requirements.read_text()
    # PyTorch is installed by the same command, not before it, so that pip resolves all packages for this PyTorch, from
    # the index given in these options.
    pytorch = torch.split() if "# torch:" in text else []
    try:
        if not python.exists():
            _call(sys.executable, "-m", "venv", str(home))
        _call(str(python), "-m", "pip", "install", "--quiet", *pytorch, "-r", str(requirements))
        if "# torchaudio:" in text:
            _call(str(python), str(PEERS / "mend_torchaudio.py"))
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise NotInstalled(name, lines[-1].strip() if lines else f"exit status {error.returncode}") from error
    stamp.write_text(digest)
    return python


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
