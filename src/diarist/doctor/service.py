"""What runs: the service, its workers, and where its traces go."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from diarist import __version__
from diarist.doctor.findings import NETWORK_S, Finding, error, ok, warning
from diarist.doctor.stores import kept
from diarist.jobs.db import worker_reports
from diarist.loopback import on_this_machine, this_machine
from diarist.settings import Settings

SILENT_S = 60.0
"""Workers say how they are every 15 s; those with a job in hand, by renewing its lease."""


def check_service(settings: Settings) -> Finding:
    """Whether a service answers where the settings say that it listens, and how it is."""
    if not settings.flask_port:
        return ok("FLASK_PORT is 0, so a service listens on a free port that only its log names")
    faults = []
    for host in _hosts(settings.flask_host):
        where = f"http://{f'[{host}]' if ':' in host else host}:{settings.flask_port}"
        try:
            return _judge(where, _status(host, settings.flask_port))
        except ConnectionRefusedError:
            faults.append(f"nothing listens on {where}")
        except (OSError, ValueError, http.client.HTTPException) as fault:
            faults.append(f"{where} does not answer as Diarist does ({fault})")
    return warning(f"{'; '.join(faults)}. Start it with `diarist serve`, if it is to run here")


def check_workers(settings: Settings) -> Finding:
    """What the workers last said of themselves, all of a fleet, and when."""
    with kept(settings) as database:
        if database is None:
            return ok("none yet")
        with database.reading() as connection:
            now = database.now(connection)
            reports = sorted(worker_reports.read(connection), key=lambda report: report.worker)
            busy = worker_reports.leaseholders(connection, now)
    if not reports:
        return warning(
            "none has said anything: start `diarist serve`"
            + (", and `diarist worker` on each machine that works" if settings.distributed else "")
        )
    silent = [
        report.worker
        for report in reports
        if now - report.reported_at > timedelta(seconds=SILENT_S) and report.worker not in busy
    ]
    errors = dict.fromkeys(message for report in reports for message in report.errors)
    states = [report.state for report in reports if report.worker not in silent]
    found = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none at work"
    if errors:
        return error(f"{found}: {' '.join(errors)}")
    if silent:
        return warning(f"{found}; not heard of for {SILENT_S:.0f} s: {', '.join(silent)}. See their logs")
    return ok(found)


def check_traces(settings: Settings) -> Finding:
    """Whether something listens where traces are sent."""
    if settings.traces == "none":
        return ok("not sent (TRACES)")
    address = urlsplit(settings.otlp_endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        return error(f"OTLP_ENDPOINT {settings.otlp_endpoint!r} is no URL such as http://127.0.0.1:4318")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=NETWORK_S):
            return ok(f"something listens on {address.hostname}:{port}")
    except OSError as fault:
        return error(
            f"nothing answers on {address.hostname}:{port} ({fault}), so traces are lost. Start the collector, or "
            "check OTLP_ENDPOINT"
        )


def _hosts(host: str) -> tuple[str, ...]:
    """Where a service with this FLASK_HOST may be found: without any key it is on this machine's own address."""
    own = this_machine(host)
    everywhere = host in ("", "0.0.0.0", "::")  # noqa: S104
    return (host,) if on_this_machine(host) and host else (own,) if everywhere else (host, own)


def _status(host: str, port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=NETWORK_S)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        content = json.loads(answer.read(2**20))
    finally:
        connection.close()
    if answer.status != http.client.OK or not isinstance(content, dict) or "nemo_components_loaded" not in content:
        raise ValueError(f"status {answer.status}")
    return content


def _judge(where: str, status: dict[str, Any]) -> Finding:
    found = f"Diarist {status.get('version')} on {where}, {status.get('status')}"
    if status.get("status") == "error":
        return error(f"{found}: {' '.join(map(str, status.get('errors', ())))}")
    if status.get("version") != __version__:
        return warning(f"{found}: installed is {__version__}. Start it again")
    if status.get("status") != "ready":
        return warning(f"{found}: recordings wait until the models are loaded")
    return ok(found)
