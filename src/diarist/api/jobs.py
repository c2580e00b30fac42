"""``/v1/jobs``: recordings that are processed in the background; clients fetch the results later."""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import urlencode

from apiflask import APIBlueprint
from flask import Response, request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from diarist.api import access
from diarist.api.job_schemas import (
    DeliveryList,
    DeliveryView,
    JobList,
    JobsQuery,
    JobView,
    NewJob,
    NewJobByUrl,
    NewJobQuery,
    fingerprint,
)
from diarist.api.openapi import CANCEL_RESPONSES, CREATE_RESPONSES, DELETE_RESPONSES, JOB_RESPONSES, LIST_RESPONSES
from diarist.api.request_log import current_request_id
from diarist.api.request_schemas import InvalidField, to_invalid_field, with_query
from diarist.api.runtime import Runtime, runtime
from diarist.api.upload import (
    FILE_FIELDS,
    FORM_BYTES,
    IDEMPOTENCY_KEY,
    check_form,
    check_head,
    check_query,
    file_name,
    received,
)
from diarist.errors import InvalidOption, JobEnded, QueueFull, QuotaExceeded, UploadTooLarge
from diarist.jobs.eta import estimate_eta_s
from diarist.jobs.model import PRIORITIES, Job, JobFilter, JobKind, JobSpec, JobState, new_job_id
from diarist.observability import tracing
from diarist.outbound.networks import parse_networks
from diarist.outbound.urls import check_url

JSON_TYPE = "application/json"

MAX_JSON_BYTES = 64 * 2**10
"""The maximum size of a JSON body, which contains two URLs and a few labels."""

_VALID_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

blueprint = APIBlueprint("jobs", __name__, tag="Jobs")


@blueprint.post("/v1/jobs")
@blueprint.input(NewJobQuery, location="query", arg_name="query")
@blueprint.output(JobView, status_code=202, description="The job was created. `Location` has its URL.")
@blueprint.doc(responses=CREATE_RESPONSES, operation_id="createJob")
def create(query: NewJobQuery) -> Response:
    """Create a job.

    Send the recording, or the URL from which it is downloaded. The response to an upload is sent as soon as the
    recording is stored. With an `Idempotency-Key` the request can safely be repeated: a second one creates no second
    job.
    """
    service = runtime()
    service.check_running()
    check_query(request)
    spec = _spec_from_headers()
    if request.mimetype != JSON_TYPE:
        check_head(request)
    refusal = _check_capacity(service, spec)
    form, upload = _parse_body()
    spec = _with_form(service, spec, with_query(form, query), upload)
    existing = _find_existing(service, spec)
    if existing is not None:
        return _job_response(service, existing, repeated=True)
    if refusal is not None:
        raise refusal
    job_limit, job_id = access.job_limit(), new_job_id()
    if upload is None:
        job = service.jobs.submit_url(spec, job_limit, job_id)
    else:
        job = service.jobs.submit(received(upload).complete(), spec, job_limit, job_id)
    # Two concurrent requests with one idempotency key may both get here. The second one then receives the first job.
    return _job_response(service, job, repeated=job.id != job_id)


@blueprint.get("/v1/jobs")
@blueprint.input(JobsQuery, location="query", arg_name="query")
@blueprint.output(JobList, description="A page of jobs, newest first.")
@blueprint.doc(responses=LIST_RESPONSES, operation_id="listJobs")
def list_jobs(query: JobsQuery) -> Response:
    """List jobs, newest first."""
    service = runtime()
    job_filter = JobFilter(
        owner=access.owner(),
        states=tuple(JobState(state) for state in query.state),
        labels=query.labels(),
        created_after=query.created_after,
        created_before=query.created_before,
    )
    page = service.jobs.store.list_jobs(job_filter, query.limit, query.cursor)
    body = JobList(data=[_job_view(service, job) for job in page.jobs], next_cursor=page.cursor)
    response = Response(body.model_dump_json(), content_type="application/json")
    if page.cursor is not None:
        next_query = urlencode(request.args.to_dict() | {"cursor": page.cursor})
        response.headers["Link"] = f'</v1/jobs?{next_query}>; rel="next"'
    return response


@blueprint.get("/v1/jobs/<job_id>")
@blueprint.output(JobView, description="The current state of the job.")
@blueprint.doc(responses=JOB_RESPONSES, operation_id="getJob")
def get(job_id: str) -> JobView:
    """Return the state of a job."""
    return _job_view(runtime(), access.get_owned_job(job_id))


@blueprint.post("/v1/jobs/<job_id>/cancel")
@blueprint.output(JobView, description="The job is canceled, by this request or an earlier one.")
@blueprint.doc(responses=CANCEL_RESPONSES, operation_id="cancelJob")
def cancel(job_id: str) -> JobView:
    """Cancel a job.

    The work stops within two seconds. Canceling a canceled job again has no effect.
    """
    service = runtime()
    job = service.jobs.cancel(access.get_owned_job(job_id).id)
    if job.state is not JobState.CANCELED:
        raise JobEnded(f"The job has already {job.state} and can only be deleted.")
    return _job_view(service, job)


@blueprint.delete("/v1/jobs/<job_id>")
@blueprint.doc(responses=DELETE_RESPONSES, operation_id="deleteJob")
def delete(job_id: str) -> Response:
    """Delete a job in any state.

    The recording, the result and all other data of the job have been deleted when the response is sent.
    """
    runtime().jobs.delete(access.get_owned_job(job_id).id)
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.get("/v1/jobs/<job_id>/deliveries")
@blueprint.output(DeliveryList, description="The attempts to deliver the webhook, oldest first.")
@blueprint.doc(responses=JOB_RESPONSES, operation_id="listDeliveries")
def deliveries(job_id: str) -> DeliveryList:
    """List the attempts to deliver the webhook of a job."""
    attempts = runtime().jobs.outbox.list_deliveries(access.get_owned_job(job_id).id)
    return DeliveryList(data=[DeliveryView.of(delivery) for delivery in attempts])


def _job_view(service: Runtime, job: Job) -> JobView:
    position = service.jobs.queue_positions.get(job.id) if job.state is JobState.QUEUED else None
    return JobView.of(job, position, estimate_eta_s(job))


def _job_response(service: Runtime, job: Job, *, repeated: bool) -> Response:
    response = Response(_job_view(service, job).model_dump_json(), content_type="application/json")
    response.status_code = HTTPStatus.OK if repeated else HTTPStatus.ACCEPTED
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _spec_from_headers() -> JobSpec:
    """Return the part of a job spec that the headers contain. Raise ``InvalidField`` for an invalid idempotency key."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _VALID_IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidField(f"{IDEMPOTENCY_KEY} must be 1 to 255 visible ASCII characters.", IDEMPOTENCY_KEY)
    return JobSpec(
        request_id=current_request_id(),
        owner=access.owner(),
        kind=JobKind.JOB,
        idempotency_key=key,
        traceparent=tracing.current_traceparent(),
    )


def _check_capacity(service: Runtime, spec: JobSpec) -> QueueFull | QuotaExceeded | None:
    """Check that there is capacity for a job.

    If there is none but the request has an idempotency key, the error is returned, not raised: the request may
    repeat an earlier one, whose job exists already.

    Raises:
        QueueFull: the number of unfinished jobs has reached its limit.
        QuotaExceeded: the recordings of the key would be too large.
        StorageFull: there is too little disk space.
    """
    try:
        size_bytes = request.content_length or 0
        recording_bytes = max(size_bytes - FORM_BYTES, 0)
        service.jobs.check_capacity(size_bytes, spec, access.job_limit(), recording_bytes=recording_bytes)
    except (QueueFull, QuotaExceeded) as error:
        if spec.idempotency_key is None:
            raise
        return error
    return None


def _parse_body() -> tuple[NewJob | NewJobByUrl, FileStorage | None]:
    """Return the fields of the request, and the uploaded recording if there is one.

    Raises:
        InvalidOption: a field is missing or invalid.
        UploadTooLarge: the JSON object is too large.
        DiaristError: the errors of ``check_form``.
    """
    if request.mimetype == JSON_TYPE:
        request.max_content_length = MAX_JSON_BYTES
        try:
            return NewJobByUrl.model_validate_json(request.get_data()), None
        except RequestEntityTooLarge as error:
            raise UploadTooLarge(
                f"The JSON object is larger than {MAX_JSON_BYTES // 2**10} kB, the limit of this service. Shorten its "
                "URLs and labels, or send the recording as a file in a form."
            ) from error
        except ValidationError as error:
            raise to_invalid_field(error) from error
    check_form(request, alternative="url")
    files = {name: request.files[name] for name in FILE_FIELDS if name in request.files}
    try:
        form = NewJob.model_validate(request.form.to_dict() | files)
    except ValidationError as error:
        raise to_invalid_field(error) from error
    return form, next(iter(files.values()), None)


def _with_form(service: Runtime, spec: JobSpec, form: NewJob | NewJobByUrl, upload: FileStorage | None) -> JobSpec:
    spec = replace(
        spec,
        options=form.options(),
        filename=file_name(upload) if upload else "",
        queue=form.queue,
        priority=PRIORITIES[form.priority],
        labels=tuple(sorted(form.labels.items())),
        webhook_url=_check_url(service, form.webhook_url, "webhook_url"),
        source_url=_check_url(service, form.url, "url"),
    )
    if spec.idempotency_key is None:
        return spec
    digest = received(upload).digest if upload else None
    return replace(spec, fingerprint=fingerprint(spec, digest.hexdigest() if digest else ""))


def _check_url(service: Runtime, url: str | None, name: str) -> str | None:
    if url is None:
        return None
    try:
        return check_url(url, name, parse_networks(service.settings.allowed_networks))
    except InvalidOption as error:
        raise InvalidField(str(error), name) from error


def _find_existing(service: Runtime, spec: JobSpec) -> Job | None:
    if spec.idempotency_key is None:
        return None
    return service.jobs.find_by_idempotency_key(spec.owner, spec.idempotency_key, spec.fingerprint)
