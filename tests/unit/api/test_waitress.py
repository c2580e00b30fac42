"""What the server uses of waitress without being promised it: all of it is named here, and is there."""

from __future__ import annotations

import ast
import inspect
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import BadRequest, Error

from diarist.api import connections, event_loop, http_channel, request_parser, request_queue, server

LOCK = type(threading.Lock())
METHOD = Callable

USED: dict[object, dict[str, object]] = {
    HTTPRequestParser: {
        "__init__": METHOD, "adj": Adjustments, "body_bytes_received": int, "body_rcv": ChunkedReceiver,
        "chunked": bool, "command": str, "completed": bool, "content_length": int, "empty": bool, "error": None,
        "expect_continue": bool, "headers": dict, "headers_finished": bool, "parse_header": METHOD, "path": str,
        "received": METHOD, "version": str,
    },
    ChunkedReceiver: {"__len__": METHOD, "control_line": bytes, "trailer": bytes},
    Error: {"__init__": METHOD, "body": str, "code": int, "reason": str},
    ErrorTask: {
        "channel": HTTPChannel, "content_length": None, "execute": METHOD, "request": HTTPRequestParser,
        "response_headers": list, "set_close_on_finish": METHOD, "status": str, "write": METHOD,
    },
    HTTPChannel: {
        "__init__": METHOD, "_flush_exception": METHOD, "_flush_some": METHOD, "adj": Adjustments,
        "close_when_flushed": bool, "connected": bool, "error_task_class": type, "handle_close": METHOD,
        "handle_write": METHOD, "outbuf_lock": threading.Condition, "parser_class": type, "readable": METHOD,
        "received": METHOD, "recv": METHOD, "request": None, "requests": list, "requests_lock": LOCK, "send": METHOD,
        "send_continue": METHOD, "sent_continue": bool, "server": BaseWSGIServer, "service": METHOD,
        "socket": socket.socket, "total_outbufs_len": int, "will_close": bool, "write_soon": METHOD,
    },
    BaseWSGIServer: {
        "_map": dict, "accept": METHOD, "accepting": bool, "active_channels": dict, "add_task": METHOD,
        "adj": Adjustments, "channel_class": type, "handle_accept": METHOD, "pull_trigger": METHOD, "readable": METHOD,
        "set_socket_options": METHOD,
    },
    Adjustments: {"socket_options": list},
    ThreadedTaskDispatcher: {
        "add_task": METHOD, "lock": LOCK, "queue": deque, "queue_cv": threading.Condition, "set_thread_count": METHOD,
        "shutdown": METHOD,
    },
    wasyncore: {"close_all": METHOD, "dispatcher": type},
    wasyncore.dispatcher: {
        "accepting": bool, "close": METHOD, "handle_close": METHOD, "handle_error": METHOD, "handle_expt_event": METHOD,
        "handle_read_event": METHOD, "handle_write_event": METHOD, "readable": METHOD, "writable": METHOD,
    },
}  # fmt: skip
"""Attributes and their kinds; None is a value that is None until it is known."""

ADDED: dict[object, frozenset[str]] = {
    BaseWSGIServer: frozenset({"connections", "write_slots", "upload_limit_bytes"}),
    Adjustments: frozenset({"authenticator", "min_free_bytes"}),
    wasyncore.dispatcher: frozenset({"handled_at"}),
}
"""What the server puts there itself."""

CALLED: tuple[tuple[Callable[..., object], tuple[str, ...]], ...] = (
    (BaseWSGIServer.__init__, ("map", "_sock", "dispatcher", "adj", "bind_socket", "sockinfo")),
    (wasyncore.close_all, ("map", "ignore_all")),
    (ThreadedTaskDispatcher.shutdown, ("cancel_pending", "timeout")),
    (HTTPChannel._flush_exception, ("flush",)),
)
"""Parameters by name or in this place."""

BASES = {
    "RequestParser": HTTPRequestParser, "_RefusalTask": ErrorTask, "Channel": HTTPChannel, "_RefusalError": Error,
    "Listener": BaseWSGIServer, "RequestQueue": ThreadedTaskDispatcher,
}  # fmt: skip

EXPRESSIONS: dict[tuple[str | None, str], object] = {
    ("RequestParser", "body"): ChunkedReceiver,
    ("RequestParser", "self.adj"): Adjustments,
    ("_RefusalTask", "error"): Error,
    ("_RefusalTask", "self.request"): HTTPRequestParser,
    ("_RefusalTask", "self.channel"): HTTPChannel,
    ("_RefusalTask", "self.channel.server"): BaseWSGIServer,
    ("Channel", "request"): HTTPRequestParser,
    ("Channel", "self.server"): BaseWSGIServer,
    ("Server", "channel"): HTTPChannel,
    ("Server", "listener"): BaseWSGIServer,
    ("Server", "adjustments"): Adjustments,
    ("Connections", "listener"): BaseWSGIServer,
    ("Connections", "channel"): HTTPChannel,
    ("Server", "self._threads"): ThreadedTaskDispatcher,
    ("Server", "wasyncore"): wasyncore,
    (None, "dispatcher"): wasyncore.dispatcher,
    ("Server", "wasyncore.dispatcher"): wasyncore.dispatcher,
}
"""What waitress's own objects are called in the source of the server, by class."""

OWN: dict[object, frozenset[str]] = {
    base: frozenset(vars(subclass)) - frozenset(dir(base))
    for base, subclass in (
        (HTTPRequestParser, request_parser.RequestParser),
        (HTTPChannel, http_channel.Channel),
        (BaseWSGIServer, connections.Listener),
    )
}
"""What the subclasses of the server add."""

HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


def used() -> Iterator[tuple[object, str]]:
    """Yield each attribute of waitress that the sources of the server name, with its owner."""
    yield from used_by(request_parser)
    yield from used_by(http_channel)
    yield from used_by(connections)
    yield from used_by(request_queue)
    yield from used_by(server)
    yield from used_by(event_loop)


def used_by(module: ModuleType) -> Iterator[tuple[object, str]]:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    for part in tree.body:
        name = part.name if isinstance(part, ast.ClassDef) else None
        base = BASES.get(name)
        made = set(vars(getattr(module, name))) - set(dir(base)) if base is not None else set()
        if isinstance(part, ast.ClassDef) and base is not None:
            yield from ((base, each) for each in vars(getattr(module, name)) if each in dir(base) and each[:2] != "__")
            made |= {
                target.attr
                for step in part.body if isinstance(step, ast.FunctionDef) and step.name == "__init__"
                for node in ast.walk(step) if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Attribute)
            } - set(USED[base])  # fmt: skip
        for node in ast.walk(part):
            if isinstance(node, ast.Attribute):
                whose = ast.unparse(node.value)
                if whose in ("self", "super()") and base is not None:
                    if node.attr not in made:
                        yield base, node.attr
                elif (name, whose) in EXPRESSIONS:
                    of = EXPRESSIONS[name, whose]
                    if node.attr not in OWN.get(of, ()):
                        yield of, node.attr


@pytest.fixture
def live() -> Iterator[dict[object, object]]:
    """One of each, as it is while a request with a body in chunks arrives."""
    known: dict[int, object] = {}
    threads = ThreadedTaskDispatcher()
    listening = socket.create_server(("127.0.0.1", 0))
    server = create_server(lambda _environ, _start: [], map=known, _dispatcher=threads, sockets=[listening])
    near, far = socket.socketpair()
    channel = HTTPChannel(server, near, "here", server.adj, map=known)
    parser = HTTPRequestParser(server.adj)
    parser.received(HEAD)
    error = parser.error = BadRequest("No.")
    try:
        yield {
            BaseWSGIServer: server, HTTPChannel: channel, HTTPRequestParser: parser, ChunkedReceiver: parser.body_rcv,
            Error: error, ErrorTask: ErrorTask(channel, parser), Adjustments: server.adj,
            ThreadedTaskDispatcher: threads, wasyncore: wasyncore, wasyncore.dispatcher: wasyncore.dispatcher,
        }  # fmt: skip
    finally:
        parser.close()
        wasyncore.close_all(known, ignore_all=True)
        for each in (near, far, listening):
            each.close()


def name_of(thing: object) -> str:
    return thing.__name__ if isinstance(thing, type | ModuleType) else str(thing)


def test_all_that_the_server_uses_is_named_here():
    named = {(of, each) for of, attributes in USED.items() for each in attributes}
    named |= {(of, each) for of, attributes in ADDED.items() for each in attributes}
    found = set(used())
    implied = {(ChunkedReceiver, "__len__")}
    assert sorted(f"{name_of(of)}.{each}" for of, each in found - named) == []
    assert sorted(f"{name_of(of)}.{each}" for of, each in named - found - implied) == []


@pytest.mark.parametrize(("of", "attribute"), [(of, each) for of in USED for each in USED[of]], ids=str)
def test_it_is_there(live, of, attribute):
    found = getattr(live[of], attribute)
    kind = USED[of][attribute]
    if kind is METHOD:
        assert callable(found)
    elif kind is None:
        assert found is None or isinstance(found, Error)
    else:
        assert isinstance(found, kind)


@pytest.mark.parametrize(("of", "attribute"), [(of, each) for of in ADDED for each in ADDED[of]], ids=str)
def test_what_the_server_adds_is_not_there_already(live, of, attribute):
    assert not hasattr(live[of], attribute)


@pytest.mark.parametrize(("function", "parameters"), CALLED, ids=lambda value: getattr(value, "__name__", None))
def test_it_is_called_in_the_same_way(function, parameters):
    assert set(parameters) <= set(inspect.signature(function).parameters)
