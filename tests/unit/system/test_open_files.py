from __future__ import annotations

import resource
import sys

from diarist.system.open_files import max_open_files


def test_the_limit_is_that_of_the_process(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (77, 99)}.get)
    assert max_open_files() == 77


def test_an_unlimited_process_has_no_limit(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert max_open_files() is None


def test_a_system_without_such_limits_has_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert max_open_files() is None
