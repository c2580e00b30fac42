"""Hosts of a private network: network namespaces that are connected by a bridge, and can be disconnected from it."""

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
"""Subnets of the addresses that are reserved for network tests (RFC 2544)."""


class NamespacesUnavailable(Exception):
    """Network namespaces cannot be created on this machine; the message says why."""


class Hosts:
    """Creates a bridge, on which this machine has the address ``center``, and one namespace for each name."""

    def __init__(self, names: Sequence[str]) -> None:
        if os.geteuid():
            raise NamespacesUnavailable("network namespaces require root")
        if shutil.which("ip") is None:
            raise NamespacesUnavailable("network namespaces require the program ip (iproute2)")
        self._tag = secrets.token_hex(3)
        self._bridge = f"dia{self._tag}"
        self._subnet = _free_subnet()
        self.center = f"{self._subnet}.1"
        self._links = {name: f"d{self._tag}{number}" for number, name in enumerate(names)}
        try:
            self._create()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NamespacesUnavailable(f"network namespaces cannot be created: {error.stderr.strip()}") from error
        except BaseException:
            self.close()
            raise

    def run_in(self, name: str) -> tuple[str, ...]:
        """Return the prefix of a command that runs on this host."""
        return ("ip", "netns", "exec", self._namespace(name))

    @contextmanager
    def disconnected(self, name: str) -> Iterator[None]:
        """Disconnect a host; its packets are dropped silently while the block runs."""
        _ip("link", "set", self._links[name], "down")
        try:
            yield
        finally:
            _ip("link", "set", self._links[name], "up")

    def close(self) -> None:
        """Kill the processes that still run on the hosts, and remove the hosts and the bridge."""
        for name, link in self._links.items():
            with suppress(subprocess.CalledProcessError):
                for pid in _ip("netns", "pids", self._namespace(name)).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), SIGKILL)
            for arguments in (("link", "del", link), ("netns", "del", self._namespace(name))):
                with suppress(subprocess.CalledProcessError):
                    _ip(*arguments)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)

    def remaining(self) -> list[str]:
        """Return the links and namespaces that still exist."""
        links = [each["ifname"] for each in json.loads(_ip("-json", "link", "show"))]
        return [each for each in (*links, *_ip("netns", "list").split()) if self._tag in each]

    def _create(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.center}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, (name, link) in enumerate(self._links.items(), start=2):
            namespace = self._namespace(name)
            _ip("netns", "add", namespace)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", link, "master", self._bridge, "up")
            _ip("-netns", namespace, "addr", "add", f"{self._subnet}.{number}/24", "dev", "eth0")
            for each in ("lo", "eth0"):
                _ip("-netns", namespace, "link", "set", each, "up")

    def _namespace(self, name: str) -> str:
        return f"dia-{self._tag}-{name}"


def _free_subnet() -> str:
    routes = _ip("route", "show")
    return next(subnet for number in range(256) if (subnet := SUBNET.format(number)) not in routes)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
