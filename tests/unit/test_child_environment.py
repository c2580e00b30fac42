from __future__ import annotations

import json
import sys
from pathlib import Path

from diarist.child_environment import SECRET_SETTINGS, program_environment, worker_environment
from diarist.inference_environment import DEFAULTS
from diarist.models import pip_download
from diarist.models.catalog import Wheel

SECRETS = {
    "API_KEY": "1", "WEBHOOK_SECRET": "2", "DATABASE_URL": "3", "QUEUE_URL": "4", "S3_SECRET_KEY": "5", "api_key": "6",
}  # fmt: skip
CREDENTIALS = {"HF_TOKEN": "7", "AWS_SECRET_ACCESS_KEY": "8", "PGPASSWORD": "9", "OTEL_EXPORTER_OTLP_HEADERS": "10"}
OTHERS = {"PATH": "/bin", "MODEL_DIR": "/models", "PIP_INDEX_URL": "https://index.example", "S3_REGION": "x"}

PIP = """
import json, os, sys
folder = sys.argv[sys.argv.index("--dest") + 1]
open(os.path.join(folder, "model-1.whl"), "w").write(json.dumps(dict(os.environ)))
"""


def test_a_worker_inherits_no_secret_setting():
    assert worker_environment(SECRETS | CREDENTIALS | OTHERS) == {**DEFAULTS, **CREDENTIALS, **OTHERS}


def test_a_worker_keeps_the_threads_that_are_set():
    assert worker_environment({"OPENBLAS_NUM_THREADS": "4"}) == {**DEFAULTS, "OPENBLAS_NUM_THREADS": "4"}


def test_another_program_inherits_no_credentials_either():
    assert program_environment(SECRETS | CREDENTIALS | OTHERS) == OTHERS


def test_the_secret_settings_are_those_that_are_never_shown():
    assert {"api_key", "webhook_secret", "database_url", "queue_url", "s3_secret_key"} == SECRET_SETTINGS


def test_pip_inherits_neither(monkeypatch, tmp_path):
    for name, value in (SECRETS | CREDENTIALS | OTHERS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pip_download, "_pip_command", lambda: (sys.executable, "-c", PIP))
    wheel = Wheel("model==1", 1)
    inherited = json.loads(Path(pip_download.download_wheel(wheel, tmp_path, lambda _bytes: None)).read_text())
    assert not inherited.keys() & (SECRETS | CREDENTIALS).keys()
    assert OTHERS.items() <= inherited.items()
