"""Checks that fail, hang or succeed, run concurrently."""

from __future__ import annotations

import threading

import pytest

from diarist.doctor.findings import Finding, ok, run_concurrently
from diarist.errors import StoreUnavailable
from diarist.settings import Settings


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None)


def raising(fault: BaseException):
    def check(settings):
        raise fault

    return check


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(settings):
    checks = {
        "one": lambda settings: ok("fine"),
        "two": raising(StoreUnavailable("Do this.")),
        "three": raising(ZeroDivisionError("by nothing")),
        "four": lambda settings: ok("fine too"),
    }
    found = dict(run_concurrently(checks, settings))
    assert list(found) == list(checks)
    assert found["one"] == Finding("ok", "fine")
    assert found["two"] == Finding("error", "Do this.")
    assert found["three"].level == "error"
    assert "ZeroDivisionError: by nothing" in found["three"].message
    assert found["four"].level == "ok"


def test_a_check_that_hangs_is_abandoned(settings):
    over = threading.Event()

    def hang(settings):
        over.wait(60)
        return ok("late")

    try:
        found = dict(run_concurrently({"slow": hang, "quick": lambda settings: ok("fine")}, settings, limit_s=0.2))
    finally:
        over.set()
    assert found["slow"].level == "error"
    assert "0.2 s" in found["slow"].message
    assert found["quick"].level == "ok"
    for thread in threading.enumerate():
        if thread.name == "slow":
            thread.join(20)


def test_checks_do_not_wait_for_each_other(settings):
    meet = threading.Barrier(2, timeout=20)

    def check(settings):
        meet.wait()
        return ok("met")

    assert [finding.message for _, finding in run_concurrently({"a": check, "b": check}, settings)] == ["met", "met"]
