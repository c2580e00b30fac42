"""Images, compose files, chart and dashboard name what there is, and keep to the rules. No image is built here.

What takes other programs (hadolint, Helm, Kubernetes' schemas) is ``make deploy-check``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from diarist.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/diarist"
DOCKERFILES = {name: (ROOT / name).read_text("utf-8") for name in ("Dockerfile", "Dockerfile.gpu")}
COMPOSE = {name: yaml.safe_load((ROOT / name).read_text("utf-8")) for name in ("compose.yaml", "compose.gpu.yaml")}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
TEMPLATES = {path.name: path.read_text("utf-8") for path in (CHART / "templates").iterdir()}
DASHBOARD = json.loads((ROOT / "deploy/grafana/diarist.json").read_text("utf-8"))
GUIDE = (ROOT / "docs/deployment.md").read_text("utf-8")

OF_LIBRARIES = {
    "HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "MPLCONFIGDIR", "NEMO_CACHE_DIR", "NUMBA_CACHE_DIR",
    "ORT_DISABLE_TELEMETRY", "PATH", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_CACHE_DIR", "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
}  # fmt: skip

EXPORTED = {
    "diarist_jobs": {"state"},
    "diarist_queue_depth": {"queue"},
    "diarist_queue_oldest_seconds": {"queue"},
    "diarist_stage_seconds": {"stage"},
    "diarist_real_time_factor": set(),
    "diarist_model_load_seconds": set(),
    "diarist_worker_restarts_total": set(),
    "diarist_workers": {"state"},
    "diarist_job_wait_seconds": set(),
    "diarist_jobs_ended_total": {"state"},
    "diarist_webhook_deliveries_total": {"outcome"},
    "diarist_http_requests_total": {"method", "path", "status"},
    "diarist_http_request_seconds": {"method", "path"},
}
"""What ``/metrics`` has, with the labels of each."""

OURS = {
    ("compose.yaml", "api"): DOCKERFILES["Dockerfile"],
    ("compose.yaml", "worker"): DOCKERFILES["Dockerfile"],
    ("compose.gpu.yaml", "diarist"): DOCKERFILES["Dockerfile.gpu"],
}
"""The services that run Diarist, and the images that they are of."""

SERVICES = [(name, service) for name, compose in COMPOSE.items() for service in compose["services"]]


def environment_of(dockerfile: str) -> dict[str, str]:
    """What ``ENV`` of the image sets, in all its stages."""
    blocks = re.findall(r"^ENV ((?:.*\\\n)*.*)$", dockerfile, re.MULTILINE)
    return dict(pair.split("=", 1) for block in blocks for pair in block.replace("\\\n", " ").split())


def put_in(text: str) -> str:
    """What compose makes of a value where nothing but what it asks for is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "0123456789abcdef01234567", text).replace("$$", "$")


def environment_in(name: str, service: str) -> dict[str, str]:
    given = COMPOSE[name]["services"][service].get("environment", {})
    return {variable: put_in(str(value)) for variable, value in given.items()}


def accepted(given: dict[str, str]) -> Settings:
    """The settings that these variables make; none of them may be unknown."""
    own = {name.lower(): value for name, value in given.items() if name not in OF_LIBRARIES}
    assert own.keys() <= Settings.model_fields.keys()
    return Settings(_env_file=None, **own)


def queries(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [part["expr"]] if "expr" in part else [q for inner in part.values() for q in queries(inner)]
    return [q for inner in part for q in queries(inner)] if isinstance(part, list) else []


def scaling() -> list[str]:
    """The query that workers are scaled by, as the template has it."""
    return re.findall(r"printf `(.*?)`", TEMPLATES["workers.yaml"])


class TestImages:
    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_every_variable_is_a_setting_that_takes_the_value(self, name):
        settings = accepted(environment_of(DOCKERFILES[name]))
        assert settings.engine == ("nemo" if name.endswith("gpu") else "embedded")
        assert settings.flask_host == "0.0.0.0"

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_what_is_copied_into_the_image_is_there_and_not_ignored(self, name):
        lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILES[name], re.MULTILINE)
        copied = [word for line in lines for word in line.split()]
        assert {"src", "conf", "constraints.txt", "pyproject.toml"} <= set(copied)
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
        for word in copied:
            assert (ROOT / word).exists()
            assert word in kept

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_it_runs_as_nobody_special_and_is_stopped_as_the_service_expects(self, name):
        users = re.findall(r"^USER (.+)$", DOCKERFILES[name], re.MULTILINE)
        assert users == ["10001:10001"]
        assert "STOPSIGNAL SIGTERM" in DOCKERFILES[name]
        assert DOCKERFILES[name].rstrip().endswith('CMD ["diarist", "serve"]')

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_nothing_in_it_reports_to_its_makers(self, name):
        """Builds of ONNX Runtime for Linux do since 2026, and only this variable keeps the first report in."""
        assert environment_of(DOCKERFILES[name])["ORT_DISABLE_TELEMETRY"] == "1"
        assert all("Environment=ORT_DISABLE_TELEMETRY=1" in text for text in TestUnits.TEXTS.values())

    def test_both_are_checked_in_the_same_way_without_other_programs(self):
        checks = {re.findall(r"^    CMD (\[.*\])$", text, re.MULTILINE)[0] for text in DOCKERFILES.values()}
        (check,) = checks
        assert json.loads(check)[:2] == ["python", "-c"]

    @pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
    def test_the_check_says_what_the_service_says(self, status, code):
        class Service(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/health/ready" else 404)
                self.end_headers()

            def log_message(self, *_):
                pass

        command = json.loads(re.findall(r"^    CMD (\[.*\])$", DOCKERFILES["Dockerfile"], re.MULTILINE)[0])
        with HTTPServer(("127.0.0.1", 0), Service) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            known = {**os.environ, "FLASK_PORT": str(server.server_port)}
            done = subprocess.run(
                [sys.executable, *command[1:]], env=known, timeout=60, capture_output=True, check=False
            )
            thread.join()
        assert done.returncode == code

    def test_extras_are_those_of_a_fleet_and_no_tools_of_developers(self):
        extras = {name: set(re.findall(r'"\.\[([\w,]+)\]"', text)[0].split(",")) for name, text in DOCKERFILES.items()}
        assert extras == {
            "Dockerfile": {"distributed", "tracing"},
            "Dockerfile.gpu": {"nemo", "distributed", "tracing"},
        }
        for text in DOCKERFILES.values():
            assert re.search(r'-c constraints\.txt "\.\[', text)

    def test_nemo_is_the_version_that_is_tested(self):
        wanted = re.findall(r"nemo_toolkit\[asr\]==[\d.]+", (ROOT / "pyproject.toml").read_text("utf-8"))
        assert re.findall(r"nemo_toolkit\[asr\]==[\d.]+", DOCKERFILES["Dockerfile.gpu"]) == wanted


class TestCompose:
    @pytest.mark.parametrize(("name", "service"), OURS)
    def test_every_variable_is_a_setting_that_takes_the_value(self, name, service):
        given = environment_in(name, service)
        settings = accepted(environment_of(OURS[name, service]) | given)
        # What handles recordings of strangers has no use for the key.
        assert len(settings.api_key) >= 20 if service != "worker" else settings.api_key == ""
        if name == "compose.yaml":
            assert settings.distributed
            assert settings.in_s3
            assert settings.database_url.startswith("postgresql://")

    @pytest.mark.parametrize(("name", "service"), SERVICES)
    def test_every_service_is_fenced_in(self, name, service):
        given = COMPOSE[name]["services"][service]
        assert given["read_only"] is True
        assert given["cap_drop"] == ["ALL"]
        assert given["security_opt"] == ["no-new-privileges:true"]
        assert given["deploy"]["resources"]["limits"]["pids"]
        assert name == "compose.gpu.yaml" or given["deploy"]["resources"]["limits"]["memory"]
        assert all(port.startswith("127.0.0.1:") for port in given.get("ports", ()))

    @pytest.mark.parametrize(("name", "service"), OURS)
    def test_folders_that_are_written_to_can_be_written(self, name, service):
        given = COMPOSE[name]["services"][service]
        places = [volume.rpartition(":")[2] for volume in given["volumes"]]
        places += [mount.partition(":")[0] for mount in given["tmpfs"]]
        known = environment_of(OURS[name, service]) | environment_in(name, service)
        written = {"DATA_DIR", "HF_HOME", "NEMO_CACHE_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"} & known.keys()
        # The API of a fleet loads no models.
        written |= set() if service == "api" else {"MODEL_DIR"}
        assert "/tmp" in places
        for variable in written:
            assert any(known[variable].startswith(place) for place in places), variable
        assert known["LOG_FILE"] == "/dev/null"

    def test_a_worker_has_longer_to_stop_than_it_takes_to_drain(self):
        grace_s = int(COMPOSE["compose.yaml"]["services"]["worker"]["stop_grace_period"].removesuffix("s"))
        assert grace_s >= float(environment_in("compose.yaml", "worker")["DRAIN_S"]) + 10

    def test_the_stores_are_ready_before_the_fleet_and_out_of_reach(self):
        services = COMPOSE["compose.yaml"]["services"]
        assert COMPOSE["compose.yaml"]["networks"]["inside"] == {"internal": True}
        for ours, store in itertools.product(("api", "worker"), ("postgres", "redis")):
            assert services[ours]["depends_on"][store] == {"condition": "service_healthy"}
            assert services[store]["healthcheck"]["test"]
            assert services[store]["networks"] == ["inside"]
        assert services["api"]["depends_on"]["bucket"] == {"condition": "service_completed_successfully"}
        assert services["bucket"]["depends_on"]["minio"] == {"condition": "service_healthy"}

    def test_secrets_are_asked_for_and_never_written_down(self):
        for name in COMPOSE:
            text = (ROOT / name).read_text("utf-8")
            for secret in re.findall(r"^ +\w*(?:KEY|PASSWORD|SECRET\w*)\w*: (.*)$", text, re.MULTILINE):
                assert secret.startswith("${") or secret == "diarist", secret
        asked = set(re.findall(r"\$\{(\w+):\?\w", (ROOT / "compose.yaml").read_text("utf-8")))
        assert asked == {"API_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_SECRET_KEY"}

    def test_volumes_and_networks_that_are_used_are_declared(self):
        for compose in COMPOSE.values():
            named = {
                volume.partition(":")[0]
                for service in compose["services"].values()
                for volume in service.get("volumes", ())
                if ":" in volume
            }
            assert named == compose["volumes"].keys()
            used = {network for service in compose["services"].values() for network in service.get("networks", ())}
            assert used == compose.get("networks", {}).keys()

    def test_images_of_others_are_pinned(self):
        for name, service in SERVICES:
            image = COMPOSE[name]["services"][service]["image"]
            tag = put_in(image).rpartition(":")[2]
            assert tag != "latest"
            assert ":" in put_in(image)


class TestChart:
    def test_every_variable_is_a_setting_that_takes_the_value(self):
        block = TEMPLATES["settings.yaml"].partition("\ndata:\n")[2]
        fixed = dict(re.findall(r"^  ([A-Z_0-9]+): \"?([^\"{\n]+?)\"?$", block, re.MULTILINE))
        assert {"FLASK_HOST", "DATA_DIR", "MODEL_DIR", "LOG_FILE"} <= fixed.keys()
        of_workers = re.findall(r'"([A-Z_]{4,})" ', TEMPLATES["workers.yaml"].partition("$settings := ")[2])
        assert {"WORKERS", "CPU_THREADS", "DRAIN_S", "QUEUES"} == set(of_workers)
        assert {name.lower() for name in of_workers} <= Settings.model_fields.keys()
        assert accepted(fixed | VALUES["settings"]).data_dir == Path("/data")
        examples = re.findall(r"^ *# +([A-Z_0-9]{4,}): ", (CHART / "values.yaml").read_text("utf-8"), re.MULTILINE)
        assert {name.lower() for name in examples} <= Settings.model_fields.keys()

    def test_all_that_is_secret_comes_from_the_secret(self):
        secret = {name for name, field in Settings.model_fields.items() if not field.repr}
        assert {"api_key", "database_url", "queue_url"} <= secret
        given = {name.lower() for name in VALUES["secret"]}
        assert secret <= given <= Settings.model_fields.keys()
        assert not any(VALUES["secret"].values())

    def test_a_worker_has_no_more_of_it_than_it_needs(self):
        api, workers = (
            set(re.findall(r'list ((?:"\w+" ?)+)', TEMPLATES[name])) for name in ("api.yaml", "workers.yaml")
        )
        names = [{word for line in lines for word in re.findall(r"\w+", line)} for lines in (api, workers)]
        assert names[0] == VALUES["secret"].keys()
        assert names[1] == {"DATABASE_URL", "QUEUE_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY"}

    def test_pods_are_fenced_in(self):
        pod, container = VALUES["podSecurityContext"], VALUES["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert f"{pod['runAsUser']}:{pod['runAsGroup']}" in DOCKERFILES["Dockerfile"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert VALUES["serviceAccount"]["automountToken"] is False

    def test_a_worker_has_longer_to_stop_than_it_takes_to_drain(self):
        assert "terminationGracePeriodSeconds: {{ add $part.drainSeconds 15 }}" in TEMPLATES["workers.yaml"]

    def test_an_api_has_longer_to_stop_than_the_pause_before_it(self):
        (pause_s,) = re.findall(r'command: \[sleep, "(\d+)"\]', TEMPLATES["api.yaml"])
        assert VALUES["api"]["terminationGracePeriodSeconds"] >= int(pause_s) + 30

    def test_uploads_as_large_as_the_service_takes_pass_the_ingress(self):
        size = VALUES["ingress"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
        assert int(size.removesuffix("m")) > Settings.model_fields["max_upload_mb"].default

    def test_it_is_of_the_newest_release(self):
        released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
        assert yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"] == released[0]

    def test_the_values_that_are_read_are_there(self):
        for name, text in TEMPLATES.items():
            for path in re.findall(r"\.Values\.([\w.]+)", text):
                found: Any = VALUES
                for part in path.split("."):
                    assert part in found, f"{name}: {path}"
                    found = found[part]
        for path in re.findall(r"\$part\.([\w.]+)", TEMPLATES["workers.yaml"]):
            found = VALUES["workerDefaults"]
            for part in path.split("."):
                assert part in found, path
                found = found[part]


class TestUnits:
    """Of systemd."""

    TEXTS: ClassVar = {path.name: path.read_text("utf-8") for path in (ROOT / "deploy/systemd").iterdir()}

    @pytest.mark.parametrize("name", TEXTS)
    def test_every_variable_is_a_setting_that_takes_the_value_and_may_be_written(self, name):
        given = dict(re.findall(r"^Environment=(\w+)=(.+)$", self.TEXTS[name], re.MULTILINE))
        settings = accepted(given)
        own = re.findall(r"^StateDirectory=(.+)$", self.TEXTS[name], re.MULTILINE)
        assert [str(settings.data_dir)] == [f"/var/lib/{folder}" for folder in own]
        assert str(settings.model_dir) == "/var/cache/diarist"

    def test_they_differ_in_what_is_run_not_in_how_it_is_fenced_in(self):
        fences = [re.search(r"^UMask=.*", text, re.MULTILINE | re.DOTALL)[0] for text in self.TEXTS.values()]
        assert len(fences) == 2
        assert fences[0] == fences[1]
        assert "ProtectSystem=strict" in fences[0]
        assert "NoNewPrivileges=yes" in fences[0]

    def test_a_worker_has_longer_to_stop_than_it_takes_to_drain(self):
        text = self.TEXTS["diarist-worker.service"]
        (grace_s,), (drain_s,) = re.findall(r"TimeoutStopSec=(\d+)", text), re.findall(r"DRAIN_S=(\d+)", text)
        assert int(grace_s) >= int(drain_s) + 10
        assert "KillMode=mixed" in text


class TestMetrics:
    @pytest.mark.parametrize("query", [*queries(DASHBOARD["panels"]), *scaling()])
    def test_every_metric_that_is_asked_for_is_exported(self, query):
        found = re.findall(r"(diarist_\w+)(?:\{([^}]*)\})?", query)
        assert found
        for name, matchers in found:
            metric = name if name in EXPORTED else re.sub(r"_(bucket|sum|count)$", "", name)
            assert metric in EXPORTED
            labels = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
            assert labels <= EXPORTED[metric] | {"job", "le"}
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}
        assert grouped <= {label for labels in EXPORTED.values() for label in labels} | {"le"}

    def test_every_metric_that_is_exported_is_on_the_dashboard(self):
        shown = " ".join(queries(DASHBOARD["panels"]))
        assert [name for name in EXPORTED if name not in shown] == []

    def test_panels_have_ids_of_their_own_and_do_not_overlap(self):
        panels = DASHBOARD["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for one, other in itertools.combinations((panel["gridPos"] for panel in panels), 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or below
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)

    def test_where_the_data_come_from_can_be_chosen(self):
        variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
        assert variables == {"datasource": "datasource", "job": "query"}
        for panel in DASHBOARD["panels"]:
            assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


class TestGuide:
    def test_the_settings_that_it_names_exist(self):
        """In the unit file, in commands, and in prose between backquotes."""
        named = set(re.findall(r"^(?:Environment=|export )?([A-Z][A-Z0-9_]{3,})=", GUIDE, re.MULTILINE))
        named |= set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", GUIDE))
        of_others = {
            "HF_TOKEN",
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
            "WORKER_CORES",
            "POSTGRES_PASSWORD",
            "REDIS_PASSWORD",
            "DIARIST_IMAGE",
        }
        assert {"API_KEY", "DRAIN_S", "DATABASE_URL", "MEDIA_URL"} <= named
        assert {name for name in named if name.lower() not in Settings.model_fields} <= of_others | OF_LIBRARIES

    def test_the_files_that_it_names_exist(self):
        for name in re.findall(r"`((?:deploy/|docs/|compose|Dockerfile)[\w./-]*)`", GUIDE):
            assert (ROOT / name).exists(), name

    def test_proxies_let_uploads_pass_that_the_service_takes(self):
        (size,) = re.findall(r"client_max_body_size (\d+)m;", GUIDE)
        (other,) = re.findall(r"max_size (\d+)MB", GUIDE)
        assert min(int(size), int(other)) > Settings.model_fields["max_upload_mb"].default
