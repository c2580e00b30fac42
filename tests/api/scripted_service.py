"""The real service as a process of its own, with the worker of ``scripted_worker``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from diarist.api import request_parser, serving
from diarist.errors import DiaristError
from diarist.settings import load_settings

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("scripted_worker.py")))


def main() -> None:
    request_parser.REQUEST_TIMEOUT_S = float(
        os.environ.get("SCRIPTED_REQUEST_TIMEOUT_S", request_parser.REQUEST_TIMEOUT_S)
    )
    try:
        serving.serve(load_settings(), COMMAND)
    except DiaristError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
