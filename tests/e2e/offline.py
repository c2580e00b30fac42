"""Start the service, have it transcribe a recording, write the answer to standard output: for a place without network.

python offline.py RECORDING FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from api.process import ServiceProcess
from api.wire import FORM, call, recording


def main() -> None:
    path, folder = map(Path, sys.argv[1:])
    service = ServiceProcess(folder, (sys.executable, str(Path(__file__).parents[2] / "app.py")))
    try:
        service.wait_for("is ready", 90)
        answer = call(service.address, "POST", "/diarize", recording(path.read_bytes()), FORM, 90)
    finally:
        service.stop()
    assert answer.status == 200, answer.body
    assert service.left_behind() == []
    sys.stdout.buffer.write(answer.body)


if __name__ == "__main__":
    main()
