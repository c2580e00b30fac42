"""Hosts of a small network of their own: each is a network namespace on one bridge, whose cable can be pulled."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from signal import SIGKILL

SUBNET = "198.18.{}"
"""Addresses that are kept for the tests of networks (RFC 2544)."""


class NoHosts(Exception):
    """This machine cannot have any; the message says why."""


class Hosts:
    """``center`` is the address of this machine on the bridge; ``Hosts.names`` are the others."""

    def __init__(self, names: Sequence[str]) -> None:
        if os.geteuid():
            raise NoHosts("network namespaces take root")
        if shutil.which("ip") is None:
            raise NoHosts("network namespaces take the program ip (iproute2)")
        self._tag = secrets.token_hex(3)
        self._bridge = f"dia{self._tag}"
        self._subnet = _free_subnet()
        self.center = f"{self._subnet}.1"
        self._links = {name: f"d{self._tag}{number}" for number, name in enumerate(names)}
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NoHosts(f"no network namespaces here: {error.stderr.strip()}") from error
        except BaseException:
            self.close()
            raise

    def run_in(self, name: str) -> tuple[str, ...]:
        """What a command is run by on that host."""
        return ("ip", "netns", "exec", self._space(name))

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """Without its cable; what it sends meanwhile is lost without a word."""
        _ip("link", "set", self._links[name], "down")
        try:
            yield
        finally:
            _ip("link", "set", self._links[name], "up")

    def close(self) -> None:
        """End what still runs on the hosts, and leave nothing of them."""
        for name, link in self._links.items():
            with suppress(subprocess.CalledProcessError):
                for pid in _ip("netns", "pids", self._space(name)).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), SIGKILL)
            for words in (("link", "del", link), ("netns", "del", self._space(name))):
                with suppress(subprocess.CalledProcessError):
                    _ip(*words)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)

    def left(self) -> list[str]:
        """What there still is of them."""
        links = [each["ifname"] for each in json.loads(_ip("-json", "link", "show"))]
        return [each for each in (*links, *_ip("netns", "list").split()) if self._tag in each]

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.center}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, (name, link) in enumerate(self._links.items(), start=2):
            space = self._space(name)
            _ip("netns", "add", space)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", link, "master", self._bridge, "up")
            _ip("-netns", space, "addr", "add", f"{self._subnet}.{number}/24", "dev", "eth0")
            for each in ("lo", "eth0"):
                _ip("-netns", space, "link", "set", each, "up")

    def _space(self, name: str) -> str:
        return f"dia-{self._tag}-{name}"


def _free_subnet() -> str:
    taken = _ip("route", "show")
    return next(subnet for number in range(256) if (subnet := SUBNET.format(number)) not in taken)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
