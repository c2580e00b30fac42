"""Processes that find nothing in Python that only POSIX systems have, as on Windows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_SITE = Path(__file__).with_name("python_without_posix_site")

ENVIRONMENT: Mapping[str, str] = {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(_SITE), os.environ.get("PYTHONPATH", "")))),
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""The variables by which a process, and all that it starts, loads ``sitecustomize`` from the folder beside this one."""

HANGING_DECODER = "HANGING_DECODER"
"""The variable that names a folder. While it exists, decoder processes start another process and hang. Both write their
IDs to a file ``pids`` in the folder."""
