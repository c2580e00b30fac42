from __future__ import annotations

from datetime import UTC, datetime

import pytest

from diarist import errors
from diarist.errors import DiaristError, JobFailed, NotAudio
from diarist.jobs.error_codes import to_exception, to_job_error
from diarist.jobs.model import Job, JobError, JobSpec, JobState

JOB = Job("id", JobState.RUNNING, JobSpec(request_id="r-42"), datetime.now(UTC))
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DiaristError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_ours_comes_back_as_itself(kind):
    back = to_exception(to_job_error(kind("Do this."), JOB))
    assert type(back) is kind
    assert str(back) == back.public_message == (getattr(kind, "default_public", None) or "Do this.")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, errors.ServiceError)])
def test_no_folder_of_the_service_is_told(kind):
    error = kind("The file /srv/secret/models/it.onnx is damaged: see https://host.example/a/page and /v1/jobs.")
    told = to_job_error(error, JOB).message
    assert "secret" not in told
    expected = "The file it.onnx is damaged: see https://host.example/a/page and /v1/jobs."
    assert told == (kind.default_public or expected)
    stored_before = to_exception(JobError(kind.code, str(error)))
    assert stored_before.public_message == expected


def test_codes_are_told_apart():
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_of_other_errors_only_the_request_is_told():
    error = to_job_error(ValueError("/secret/path"), JOB)
    assert error.code == "job_failed"
    assert "r-42" in error.message
    assert "secret" not in error.message


def test_a_code_of_another_version_is_a_failed_job():
    assert type(to_exception(JobError("of_tomorrow", "words"))) is JobFailed


def test_words_that_a_database_refuses_are_mended():
    assert to_job_error(NotAudio("a\0b\ud800"), JOB).message == "ab?"
