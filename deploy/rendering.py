"""Renders the chart with Helm itself: an installation into a stand-in for a cluster that only writes down what it gets.

Helm comes as a library (helm-sdkpy), which has no ``helm template``; installing renders the same manifests. The
stand-in listens on loopback and answers what Helm asks before it creates anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "1.34"
JSON = "application/json"

KINDS = {
    "v1": ("ConfigMap", "PersistentVolumeClaim", "Secret", "Service"),
    "apps/v1": ("Deployment",),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "keda.sh/v1alpha1": ("ScaledObject",),
    "monitoring.coreos.com/v1": ("ServiceMonitor",),
}


class RenderingError(Exception):
    """Helm refused the chart or the values; the message is Helm's."""


def plural(kind: str) -> str:
    """The name of a kind in addresses: ``NetworkPolicy`` is ``networkpolicies``."""
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}es" if name.endswith("s") else f"{name}s"


def discovery(path: str) -> Any:
    """What an API server says there is at ``path``; None where that is nothing."""
    if path == "/version":
        major, minor = KUBERNETES.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES}.0", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [version.split("/") for version in KINDS if "/" in version]
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups
            ],
        }
    wanted = path.removeprefix("/apis/").removeprefix("/api/")
    if wanted not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": wanted,
        "resources": [
            {"name": plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
            for kind in KINDS[wanted]
        ],
    }


@contextmanager
def cluster() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a stand-in, and what has been created in it so far."""
    created: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = discovery(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self._answer(404 if found is None else 200, found or missing)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            # In another form comes what Helm writes down about the release for itself.
            if self.headers["Content-Type"] == JSON:
                created.append(json.loads(content))
            self._send(201, self.headers["Content-Type"], content)

        def _answer(self, status: int, body: Any) -> None:
            self._send(status, JSON, json.dumps(body).encode())

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", created
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what Helm's library logs to the console by itself; what matters comes as a result or an error."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def render(chart: Path, values: Mapping[str, Any], release: str = "meetings") -> tuple[dict[str, Any], ...]:
    """The manifests of the chart with these values, as Helm sends them to a cluster.

    Raises:
        RenderingError: Helm refused them.
    """
    import helm_sdkpy

    with _quiet(), cluster() as (address, created):
        access = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
            "current-context": "here",
        }
        helm = helm_sdkpy.Configuration(namespace="default", kubeconfig=yaml.safe_dump(access))
        installing = helm_sdkpy.Install(helm)
        try:
            asyncio.run(installing.run(release, str(chart), values=dict(values), wait=False, timeout=60))
        except helm_sdkpy.HelmError as error:
            raise RenderingError(str(error)) from error
    return tuple(created)


def lint(chart: Path) -> tuple[str, ...]:
    """What ``helm lint`` has against the chart, beyond advice."""
    import helm_sdkpy

    with _quiet():
        found = asyncio.run(helm_sdkpy.Lint(helm_sdkpy.Configuration(namespace="default")).run(str(chart)))
    advice = 1
    return tuple(json.dumps(message) for message in found["Messages"] or () if message["Severity"] > advice) + tuple(
        str(error) for error in found["Errors"] or ()
    )
