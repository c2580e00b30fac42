"""The image and the compose file for GPUs name what there is. No image is built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from diarist.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile.gpu").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text("utf-8"))
OF_LIBRARIES = {"HF_HOME", "NEMO_CACHE_DIR", "PYTHONUNBUFFERED"}


def environment() -> dict[str, str]:
    """What ``ENV`` of the image sets."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


@pytest.mark.parametrize("given", [environment(), COMPOSE["services"]["diarist"]["environment"]])
def test_every_variable_is_a_setting_that_takes_the_value(given):
    own = {name.lower(): value for name, value in given.items() if name not in OF_LIBRARIES}
    assert own.keys() <= Settings.model_fields.keys()
    assert Settings(_env_file=None, **own).engine == "nemo"


def test_what_is_copied_into_the_image_is_there_and_not_ignored():
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert {"src", "conf", "constraints.txt", "pyproject.toml"} <= set(copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for name in copied:
        assert (ROOT / name).exists()
        assert name in kept


def test_folders_that_are_written_to_are_volumes_of_the_user_who_runs():
    service = COMPOSE["services"]["diarist"]
    mounted = {volume.partition(":")[2] for volume in service["volumes"]} | set(service["tmpfs"])
    assert service["read_only"] is True
    for name in ("DATA_DIR", "MODEL_DIR", "LOG_FILE", "HF_HOME", "NEMO_CACHE_DIR"):
        assert any(environment()[name].startswith(folder) for folder in mounted), name
    assert re.search(r"^USER \d+$", DOCKERFILE, re.MULTILINE)


def test_nemo_is_the_version_that_is_tested():
    wanted = re.findall(r"nemo_toolkit\[asr\]==[\d.]+", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert re.findall(r"nemo_toolkit\[asr\]==[\d.]+", DOCKERFILE) == wanted


def test_the_service_is_not_published_to_the_network():
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["diarist"]["ports"])
