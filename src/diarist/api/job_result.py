"""``GET /v1/jobs/{id}/result``: the result of a job in any format, or the part that is already final."""

from __future__ import annotations

import math
from http import HTTPStatus

from apiflask import APIBlueprint
from flask import Response

from diarist.api import access, problems
from diarist.api.job_schemas import ResultQuery
from diarist.api.openapi import RESULT_RESPONSES
from diarist.api.response_schemas import Conversation
from diarist.api.runtime import runtime
from diarist.api.transcript_response import transcript_response
from diarist.errors import JobCanceled, JobNotDone
from diarist.jobs.error_codes import to_exception
from diarist.jobs.eta import estimate_eta_s
from diarist.jobs.model import Job, JobError, JobState
from diarist.types import Diarization, Transcript, Turn, Utterance

RETRY_S = (1, 30)
"""The minimum and maximum of the ``Retry-After`` header while there is no result, in seconds."""

blueprint = APIBlueprint("job_result", __name__, tag="Jobs")


@blueprint.get("/v1/jobs/<job_id>/result")
@blueprint.input(ResultQuery, location="query", arg_name="query")
@blueprint.output(Conversation, description="The transcript: who said what, when.")
@blueprint.doc(responses=RESULT_RESPONSES, operation_id="getResult")
def result(job_id: str, query: ResultQuery) -> Response:
    """Return the result of a job.

    While the job is running, `partial=true` returns the utterances that are already final.
    """
    jobs = runtime().jobs
    job = access.get_owned_job(job_id)
    query.check(complete=job.state.ended)
    if job.error is not None:
        return failure_response(job.error)
    if job.state is JobState.CANCELED:
        raise JobCanceled("The job was canceled, so it has no result. Create a new job to process the recording.")
    if not job.state.ended and not query.partial:
        return _not_done_response(job)
    transcript = (
        jobs.result(job.id)
        if job.state.ended
        else partial_transcript(jobs.final_utterances(job.id), runtime().settings.engine)
    )
    response = transcript_response(transcript, query, recording=job.spec.filename, filename=job.id)
    if not job.state.ended:
        response.headers["Diarist-Partial"] = "true"
    return response


def partial_transcript(utterances: tuple[Utterance, ...], engine: str) -> Transcript:
    """Return a transcript of the utterances that are already final."""
    turns = tuple(sorted(Turn(utterance.span, utterance.speaker) for utterance in utterances))
    end = max((turn.span.end for turn in turns), default=0.0)
    return Transcript(
        utterances=utterances,
        diarization=Diarization(turns),
        duration=end,
        language=None,
        language_probability=None,
        engine=engine,
        timings=(),
    )


def failure_response(error: JobError) -> Response:
    """Return the error of a failed job as a response.

    Its header tells clients not to retry, whatever the status suggests: the result of the job does not change.
    """
    exception = to_exception(error)
    status = problems.status_of(type(exception))
    response = problems.response_to(exception, min(status, int(HTTPStatus.INTERNAL_SERVER_ERROR)))
    response.headers["x-should-retry"] = "false"
    return response


def _not_done_response(job: Job) -> Response:
    minimum_s, maximum_s = RETRY_S
    eta_s = estimate_eta_s(job)
    response = problems.response_to(
        JobNotDone(
            f"The job is {job.state} ({job.progress:.0%} done) and has no result yet. Try again later, follow "
            f"/v1/jobs/{job.id}/events, or set partial=true to get the utterances that are already final."
        )
    )
    response.headers["Retry-After"] = str(
        minimum_s if eta_s is None else min(max(math.ceil(eta_s), minimum_s), maximum_s)
    )
    return response
