"""A service that submits one recording and lives on: ``python service_entry.py DATA_DIR FOLDER ORDERS``."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

from diarist.jobs.db.job_store import open_store
from diarist.jobs.model import JobSpec
from diarist.jobs.service import JobService
from diarist.settings import load_settings

settings = load_settings(data_dir=Path(sys.argv[1]), min_free_mb=0)
entry = Path(__file__).with_name("worker_entry.py")
service = JobService(settings, open_store(settings), (sys.executable, str(entry), sys.argv[2]))
service.start()
service.submit(io.BytesIO(sys.argv[3].encode()), JobSpec(filename="talk.wav", request_id="r-1"))
threading.Event().wait()
