"""Checks of the running service, its workers, and the trace collector."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from diarist import __version__
from diarist.doctor.findings import NETWORK_TIMEOUT_S, Finding, error, ok, warning
from diarist.doctor.stores import open_existing_job_store
from diarist.jobs.db import worker_reports
from diarist.loopback import is_loopback, loopback_address
from diarist.settings import Settings

REPORT_TIMEOUT_S = 60.0
"""Workers report every 15 s. Workers with a running job renew its lease instead."""


def check_service(settings: Settings) -> Finding:
    """Check that a service responds at the address of the settings, and its state."""
    if not settings.flask_port:
        return ok("FLASK_PORT is 0, so a service listens on a random free port, which its log names")
    problems = []
    for host in _hosts(settings.flask_host):
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.flask_port}"
        try:
            return _evaluate_status(url, _status(host, settings.flask_port))
        except ConnectionRefusedError:
            problems.append(f"nothing listens on {url}")
        except (OSError, ValueError, http.client.HTTPException) as exc:
            problems.append(f"{url} does not respond like Diarist ({exc})")
    return warning(f"{'; '.join(problems)}. If the service should run here, start it with `diarist serve`")


def check_workers(settings: Settings) -> Finding:
    """Check the last reports of all workers of a fleet, and their age."""
    with open_existing_job_store(settings) as database:
        if database is None:
            return ok("there are no workers yet")
        with database.reading() as connection:
            now = database.now(connection)
            reports = sorted(worker_reports.read(connection), key=lambda report: report.worker)
            busy = worker_reports.leaseholders(connection, now)
    if not reports:
        return warning(
            "no worker has reported: start `diarist serve`"
            + (", and `diarist worker` on each worker machine" if settings.distributed else "")
        )
    unresponsive = [
        report.worker
        for report in reports
        if now - report.reported_at > timedelta(seconds=REPORT_TIMEOUT_S) and report.worker not in busy
    ]
    errors = dict.fromkeys(message for report in reports if report.state != "ready" for message in report.errors)
    notices = dict.fromkeys(message for report in reports if report.state == "ready" for message in report.errors)
    states = [report.state for report in reports if report.worker not in unresponsive]
    summary = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no active workers"
    if errors:
        return error(f"{summary}: {' '.join(errors)}")
    if unresponsive:
        return warning(
            f"{summary}; no report for {REPORT_TIMEOUT_S:.0f} s from {', '.join(unresponsive)}. See their logs"
        )
    if notices:
        return warning(f"{summary}: {' '.join(notices)}")
    return ok(summary)


def check_traces(settings: Settings) -> Finding:
    """Check that a server listens at the address that traces are sent to."""
    if settings.traces == "none":
        return ok("not sent (TRACES is none)")
    address = urlsplit(settings.otlp_endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        return error(f"OTLP_ENDPOINT {settings.otlp_endpoint!r} is not a URL such as http://127.0.0.1:4318")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=NETWORK_TIMEOUT_S):
            return ok(f"a server listens on {address.hostname}:{port}")
    except OSError as exc:
        return error(
            f"nothing responds on {address.hostname}:{port} ({exc}), so traces are lost. Start the collector, or "
            "check OTLP_ENDPOINT"
        )


def _hosts(host: str) -> tuple[str, ...]:
    """Return the addresses to try: without any API key the service listens on the loopback address."""
    own = loopback_address(host)
    everywhere = host in ("", "0.0.0.0", "::")  # noqa: S104
    return (host,) if is_loopback(host) and host else (own,) if everywhere else (host, own)


def _status(host: str, port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=NETWORK_TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        content = json.loads(answer.read(2**20))
    finally:
        connection.close()
    if answer.status != http.client.OK or not isinstance(content, dict) or "nemo_components_loaded" not in content:
        raise ValueError(f"status {answer.status}")
    return content


def _evaluate_status(url: str, status: dict[str, Any]) -> Finding:
    summary = f"Diarist {status.get('version')} on {url}, {status.get('status')}"
    if status.get("status") == "error":
        return error(f"{summary}: {' '.join(map(str, status.get('errors', ())))}")
    if status.get("version") != __version__:
        return warning(f"{summary}: version {__version__} is installed. Restart the service")
    if status.get("status") != "ready":
        return warning(f"{summary}: recordings wait until the models are loaded")
    return ok(summary)
