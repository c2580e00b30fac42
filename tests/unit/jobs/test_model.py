"""The IDs of jobs."""

from __future__ import annotations

import pytest

from diarist.jobs.model import check_job_id, is_job_id, new_job_id


def test_ids_are_fit_for_urls_and_never_the_same():
    ids = {new_job_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(len(job_id) == 22 and is_job_id(job_id) for job_id in ids)


@pytest.mark.parametrize("text", ["", "x" * 21, "x" * 23, "x" * 21 + "/", "x" * 21 + "\n", "../" + "x" * 19])
def test_other_texts_are_refused(text):
    assert not is_job_id(text)
    with pytest.raises(ValueError, match="is not a job ID"):
        check_job_id(text)
