"""Checks Dockerfiles, compose files, chart and dashboard, as far as that goes without an engine or a cluster.

Run by ``make deploy-check``, in an environment of its own (``deploy/requirements.txt``).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rendering

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy/helm/diarist"
DASHBOARD = ROOT / "deploy/grafana/diarist.json"
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "Dockerfile.gpu")
COMPOSE_FILES = (ROOT / "compose.yaml", ROOT / "compose.gpu.yaml")
PROGRAMS = Path(sys.executable).parent

VERSIONS = ("1.27", "1.37")
"""Kubernetes releases that the manifests have to suit: the oldest that the chart takes, and a new one."""

OF_OTHERS = {"ScaledObject", "ServiceMonitor"}
"""Kinds whose schemas come with KEDA and the Prometheus operator, not with Kubernetes."""

ENOUGH: dict[str, Any] = {"existingSecret": "mine", "media": {"url": "s3://recordings/media"}}
"""The least that the chart takes."""

VALUES: dict[str, dict[str, Any]] = {
    "the least": ENOUGH,
    "a secret of its own": {
        "media": {"existingClaim": "media"},
        "secret": {"API_KEY": "a" * 24, "DATABASE_URL": "postgresql://d@db/d", "QUEUE_URL": "redis://r:6379/0"},
        "models": {"kind": "claim", "storageClassName": "nfs"},
    },
    "everything": {
        **ENOUGH,
        "image": {"repository": "registry.example/diarist", "tag": 12},
        "imagePullSecrets": [{"name": "registry"}],
        "settings": {"MAX_UPLOAD_MB": 1048576, "JOB_RETRY_S": 2.5, "FLASK_DEBUG": True},
        "models": {"kind": "baked"},
        "serviceAccount": {"name": "bucket", "automountToken": True},
        "api": {"settings": {"MAX_WAITING": 64}, "podAnnotations": {"a/b": "c"}, "priorityClassName": "high"},
        "workers": {
            "cpu": {},
            "gpu": {
                "image": {"tag": "gpu"},
                "queues": "gpu,nemo",
                "settings": {"ENGINE": "nemo"},
                "drainSeconds": 600,
                "resources": {"limits": {"nvidia.com/gpu": 1}},
                "runtimeClassName": "nvidia",
                "nodeSelector": {"nvidia.com/gpu.present": "true"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "keda": {"minReplicas": 0},
            },
        },
        "ingress": {"enabled": True, "className": "nginx", "host": "diarist.example", "tlsSecretName": "tls"},
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "keda": {"enabled": True, "prometheusAddress": "http://prometheus.monitoring:9090"},
    },
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no place for recordings": ({"existingSecret": "mine"}, "Set media.url"),
    "two places for recordings": ({**ENOUGH, "media": {"url": "s3://b/f", "existingClaim": "c"}}, "not both"),
    "no secret": ({"media": {"url": "s3://b/f"}}, "API_KEY is missing"),
    "KEDA without Prometheus": ({**ENOUGH, "keda": {"enabled": True}}, "keda.prometheusAddress"),
    "an ingress without a name": ({**ENOUGH, "ingress": {"enabled": True}}, "ingress.host"),
    "a slip of the pen": ({**ENOUGH, "workers": {"cpu": {"thread": 4}}}, "thread"),
    "a setting in lower case": ({**ENOUGH, "settings": {"log_format": "json"}}, "log_format"),
}


def dockerfile_faults() -> Iterator[str]:
    done = subprocess.run([PROGRAMS / "hadolint", *DOCKERFILES], capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stdout + done.stderr


def compose_faults() -> Iterator[str]:
    command: list[str | Path] = [
        PROGRAMS / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        *COMPOSE_FILES,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stdout + done.stderr


def chart_faults() -> Iterator[str]:
    yield from rendering.lint(CHART)
    for name, values in VALUES.items():
        try:
            manifests = rendering.render(CHART, values)
        except rendering.RenderingError as error:
            yield f"{name}: {error}"
            continue
        if not manifests:
            yield f"{name}: nothing was rendered"
        for manifest in manifests:
            yield from (f"{name}: {fault}" for fault in manifest_faults(manifest))
    for name, (values, words) in REFUSED.items():
        try:
            rendering.render(CHART, values)
        except rendering.RenderingError as error:
            if words not in str(error):
                yield f"{name}: is refused, but without saying {words!r}: {error}"
        else:
            yield f"{name}: is not refused"


def manifest_faults(manifest: dict[str, Any]) -> Iterator[str]:
    """What is against a manifest: Kubernetes' schemas, and for scaled objects the query in them."""
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    if manifest["kind"] == "ScaledObject":
        for trigger in manifest["spec"]["triggers"]:
            yield from (f"{name}: {fault}" for fault in query_faults(trigger["metadata"]["query"]))
    if manifest["kind"] in OF_OTHERS:
        return
    import kubernetes_validate

    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def dashboard_faults() -> Iterator[str]:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    queries = list(expressions(dashboard))
    if not queries:
        yield "the dashboard asks for nothing"
    for query in queries:
        yield from query_faults(query)


def expressions(part: Any) -> Iterator[str]:
    """All PromQL in a dashboard."""
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "expr":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from expressions(inner)


def query_faults(query: str) -> Iterator[str]:
    """What Prometheus would have against a query, once Grafana has put its variables in."""
    import promql_parser

    text = re.sub(r"\$__(rate_)?interval", "5m", query)
    try:
        promql_parser.parse(re.sub(r"\$\w+", "x", text))
    except ValueError as error:
        yield f"{query}: {error}"


def main() -> int:
    warnings.simplefilter("ignore")
    failed = 0
    for what, faults in {
        "Dockerfiles (hadolint)": dockerfile_faults,
        "compose files (compose-spec's schema)": compose_faults,
        f"chart (Helm; Kubernetes {', '.join(VERSIONS)})": chart_faults,
        "dashboard and queries (PromQL)": dashboard_faults,
    }.items():
        found = list(faults())
        failed += bool(found)
        print(f"{'FAULTS' if found else 'clean'}  {what}")
        for fault in found:
            print(f"    {fault}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
