"""Run the decoder process without what only POSIX systems have: ``python -I -S decoder_entry.py PROGRAM REQUEST``."""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120

import posix_removal  # type: ignore[import-not-found]  # it is beside this file

# The decoder is killed together with its parent: by this signal on Linux, and by a job object on Windows.
posix_removal.remove(keep=frozenset({"SIGKILL"}))
sys.path.pop(0)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
