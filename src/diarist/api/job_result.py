"""``GET /v1/jobs/{id}/result``: what a job found, in any format, or so far."""

from __future__ import annotations

import math
from http import HTTPStatus

from apiflask import APIBlueprint
from flask import Response

from diarist.api import access, problems
from diarist.api.job_schemas import ResultQuery
from diarist.api.openapi import RESULT_RESPONSES
from diarist.api.runtime import runtime
from diarist.api.schemas import Conversation
from diarist.api.transcript_response import transcript_response
from diarist.errors import JobCanceled, JobNotDone
from diarist.jobs.error_codes import to_exception
from diarist.jobs.eta import estimate_eta_s
from diarist.jobs.model import Job, JobError, JobState
from diarist.types import Diarization, Transcript, Turn, Utterance

RETRY_S = (1, 30)
"""Least and most that an answer advises to wait for a result."""

blueprint = APIBlueprint("job_result", __name__, tag="Jobs")


@blueprint.get("/v1/jobs/<job_id>/result")
@blueprint.input(ResultQuery, location="query", arg_name="query")
@blueprint.output(Conversation, description="Who said what, when.")
@blueprint.doc(responses=RESULT_RESPONSES, operation_id="getResult")
def result(job_id: str, query: ResultQuery) -> Response:
    """Fetch the result of a job.

    While the job runs, `partial=true` gives what is final so far.
    """
    jobs = runtime().jobs
    job = access.get_owned_job(job_id)
    query.check(whole=job.state.ended)
    if job.error is not None:
        return failure_response(job.error)
    if job.state is JobState.CANCELED:
        raise JobCanceled("The job was canceled: it has no result. Make a new one to have the recording worked on.")
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
    """Utterances that are final, as a transcript."""
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
    """What a job failed with. To ask again gives the same, whatever the status says to clients that try again."""
    exception = to_exception(error)
    status = problems.status_of(type(exception))
    response = problems.response_to(exception, min(status, int(HTTPStatus.INTERNAL_SERVER_ERROR)))
    response.headers["x-should-retry"] = "false"
    return response


def _not_done_response(job: Job) -> Response:
    least, most = RETRY_S
    eta_s = estimate_eta_s(job)
    response = problems.response_to(
        JobNotDone(
            f"The job is {job.state} ({job.progress:.0%} done): it has no result yet. Ask again later, follow "
            f"/v1/jobs/{job.id}/events, or ask with partial=true for what is final so far."
        )
    )
    response.headers["Retry-After"] = str(least if eta_s is None else min(max(math.ceil(eta_s), least), most))
    return response
