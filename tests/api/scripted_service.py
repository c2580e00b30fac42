"""The real service as a process of its own, with ``scripted_worker`` in place of the engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from diarist.api import server, serving
from diarist.errors import DiaristError
from diarist.settings import load_settings

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("scripted_worker.py")))


def main() -> None:
    server.GRACE_S = float(os.environ.get("SCRIPTED_GRACE_S", server.GRACE_S))
    try:
        serving.serve(load_settings(), COMMAND)
    except DiaristError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
