"""A decoder process that starts another process and hangs: ``python hanging_decoder.py FOLDER ...``."""

import os
import subprocess
import sys
import time

child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"])
with open(os.path.join(sys.argv[1], "pids"), "a", encoding="ascii") as file:  # noqa: PTH118, PTH123
    file.write(f"{os.getpid()} {child.pid}\n")
time.sleep(3600)
