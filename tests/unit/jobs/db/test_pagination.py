from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import InvalidOption
from diarist.jobs.db.pagination import _parse_cursor, cursor_after
from support.job_stores import new_job


@given(
    created_at=st.integers(0, 230 * 365 * 86_400 * 10**6).map(
        lambda count: datetime(1970, 1, 2, tzinfo=UTC) + timedelta(microseconds=count)
    )
)
def test_a_cursor_names_its_job_to_the_microsecond(created_at):
    job = new_job(created_at=created_at)
    cursor = cursor_after(job)
    assert _parse_cursor(cursor) == (created_at, job.id)
    assert cursor.isascii()
    assert not set(cursor) & set("=&?/+ ")


@given(st.text())
def test_whatever_else_is_sent_is_refused_in_words_or_names_a_place(cursor):
    try:
        moment, job_id = _parse_cursor(cursor)
    except InvalidOption as error:
        assert "next_cursor" in str(error)  # noqa: PT017 - nothing else may be raised
    else:
        assert moment.tzinfo is UTC
        assert job_id.isprintable()


@pytest.mark.parametrize("cursor", ["MWU5OTkgYQ", "LTFlOTk5IGE", "bmFuIGE", "MSAA"])
def test_numbers_that_are_no_time_and_ids_that_are_none(cursor):
    with pytest.raises(InvalidOption):
        _parse_cursor(cursor)
