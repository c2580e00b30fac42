"""Deliver the webhook of a job that has ended: it is signed and retried, and every attempt is stored."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from diarist.errors import JobNotFound
from diarist.jobs.db.outbox import OutboxStore, OutboxTask
from diarist.jobs.error_codes import to_job_error
from diarist.jobs.model import Job, JobState
from diarist.jobs.store import JobStore
from diarist.observability import logs, tracing
from diarist.outbound.networks import parse_networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.outbound.webhooks import RETRY_DELAYS_S, DeliveryResult, post, secret_for, sign
from diarist.settings import Settings
from diarist.types import Seconds

logger = logging.getLogger(__name__)


class WebhookHandler:
    """Sends webhooks, and retries each after ``delays_s`` until its receiver accepts it.

    Args:
        settings: the timeout of a receiver, and the networks that are allowed.
        store: stores the jobs.
        outbox: stores the tasks and each attempt.
        master: the secret from which that of each owner is derived (``keys.webhook_master``).
        delays_s: the delay before each attempt, from the previous one; there are as many attempts as delays.
        resolve: resolves host names.
        tls: the certificates to trust; None means those of the system and of certifi.

    Raises:
        ConfigurationError: ALLOWED_NETWORKS or WEBHOOK_SECRET is not valid.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        outbox: OutboxStore,
        master: str,
        *,
        delays_s: Sequence[Seconds] = RETRY_DELAYS_S,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        secret_for(master, "")
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._master = master
        self._delays_s = tuple(delays_s)
        self._networks = parse_networks(settings.allowed_networks)
        self._resolve = resolve
        self._tls = tls

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        """Make one attempt."""
        job = self._job(task)
        if job is None or job.spec.webhook_url is None or not job.state.ended:
            self._outbox.complete(task)
            return
        body = payload(job)
        with (
            logs.log_context(request=job.spec.request_id, job=job.id),
            tracing.span(
                "webhook", parent=job.spec.traceparent, kind="client", job_id=job.id, attempt=task.attempts
            ) as span,
        ):
            result = post(
                job.spec.webhook_url,
                body,
                sign(secret_for(self._master, job.spec.owner), task.id, body),
                timeout_s=self._settings.webhook_timeout_s,
                networks=self._networks,
                check=check,
                resolve=self._resolve,
                tls=self._tls,
            )
            if result.status:
                span.set_attributes(http_status=result.status)
            if not result.ok:
                span.fail(str(result.status or "unreachable"))
            self._record(task, job, result, last=result.status == HTTPStatus.GONE)

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        """Store an attempt that failed because of an error of the service."""
        job = self._job(task)
        if job is None:
            self._outbox.complete(task)
        else:
            self._record(task, job, DeliveryResult(0, 0.0, to_job_error(error, job).message), last=last)

    def _job(self, task: OutboxTask) -> Job | None:
        try:
            return self._store.get(task.job_id)
        except JobNotFound:
            return None

    def _record(self, task: OutboxTask, job: Job, result: DeliveryResult, *, last: bool) -> None:
        again = not result.ok and not last and task.attempts < len(self._delays_s)
        retry_s = float(self._delays_s[task.attempts]) if again else None
        if not self._outbox.record_delivery(task, result, retry_s):
            return
        # Only the host is logged: the path and the query may contain a secret of the receiver.
        host = urlsplit(job.spec.webhook_url or "").hostname
        extra = {"job_id": job.id}
        if result.ok:
            logger.info("Webhook accepted by %s after %.2f s", host, result.took_s, extra=extra)
        elif retry_s is None:
            logger.warning(
                "The webhook to %s failed for good after %d attempts: %s",
                host,
                task.attempts,
                result.error,
                extra=extra,
            )
        else:
            logger.info("The webhook to %s failed, next attempt in %g s: %s", host, retry_s, result.error, extra=extra)


def payload(job: Job) -> bytes:
    """Return the body of the webhook of a job that has ended: the same in every attempt, and without the transcript."""
    address = f"/v1/jobs/{job.id}"
    succeeded = job.state is JobState.SUCCEEDED
    data = {
        "id": job.id,
        "state": job.state,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "ended_at": _time(job.ended_at),
        "duration": job.duration,
        "labels": dict(job.spec.labels),
        "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
        "attempts": job.attempts,
        "links": {"self": address, "result": f"{address}/result" if succeeded else None},
    }
    content = {"type": f"job.{job.state}", "timestamp": _time(job.ended_at), "data": data}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
