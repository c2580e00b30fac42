"""Runs the fenced blocks of a document, so that the document shows what really happens.

Above each block of commands, code or JSON is a line with one of these directives:

    <!-- run -->                 the block is run and must succeed; in `console` blocks, the text after `$ command` is
                                 the expected output
    <!-- answer -->              the block is the expected output of the last run block; `...` matches anything
    <!-- not run: the reason -->

Blocks run one after another in one folder, which contains a recording, ``meeting.wav``. ``http://127.0.0.1:5000`` in
them is a service that is started for them.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE = "http://127.0.0.1:5000"
SHELLS = frozenset({"sh", "bash", "shell", "console"})
LANGUAGES_WITH_DIRECTIVE = SHELLS | {"python", "json"}
"""The languages of blocks that need a directive."""

DIRECTIVE = re.compile(r"<!--\s*(?P<kind>run|answer|not run:\s*\S.*?)\s*-->")
FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})\s*(?P<language>\w*).*")
TOLERANCE = 0.05
"""The maximum difference from a shown number: times vary slightly between processors."""


class DocumentError(AssertionError):
    """A document is wrong. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    line: int
    """The line of the opening fence, from 1."""

    kind: str
    """The directive: ``run``, ``answer``, ``not run`` or an empty string."""

    @property
    def needs_service(self) -> bool:
        return self.kind == "run" and SERVICE in self.text


def blocks(document: str) -> tuple[Block, ...]:
    """Return the fenced blocks of a Markdown text, in order."""
    found: list[Block] = []
    lines = enumerate(document.splitlines(), start=1)
    kind = ""
    for number, line in lines:
        if fence := FENCE.fullmatch(line):
            inside = []
            for _, inner in lines:
                if inner.strip() == fence["ticks"]:
                    break
                inside.append(inner.removeprefix(fence["indent"]))
            else:
                raise DocumentError(f"line {number}: this block is never closed")
            found.append(Block(fence["language"], "\n".join(inside) + "\n", number, kind))
            kind = ""
        elif directive := DIRECTIVE.fullmatch(line.strip()):
            kind = directive["kind"].partition(":")[0]
        elif line.strip():
            kind = ""
    return tuple(found)


def faults(document: str) -> tuple[str, ...]:
    """Return messages about blocks without a directive or with a wrong one."""
    found, printed = [], False
    for block in blocks(document):
        if block.language in LANGUAGES_WITH_DIRECTIVE and not block.kind:
            found.append(
                f"line {block.line}: put <!-- run -->, <!-- answer --> or <!-- not run: why --> above this block"
            )
        if block.kind == "run" and block.language not in SHELLS | {"python"}:
            found.append(f"line {block.line}: a block of {block.language or 'plain text'} cannot be run")
        if block.kind == "answer" and not printed:
            found.append(f"line {block.line}: nothing is run before this answer")
        printed = printed or block.kind == "run"
    return tuple(found)


def run(document: str, folder: Path, service: str = SERVICE, environment: Mapping[str, str] | None = None) -> int:
    """Run the blocks in ``folder`` with the service at ``service``, and return how many were run.

    Raises:
        DocumentError: A block failed, or its output differs from the document.
    """
    known = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    known |= {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", **(environment or {})}
    count, printed = 0, ""
    for block in blocks(document):
        try:
            if block.kind == "run":
                text, count = block.text.replace(SERVICE, service), count + 1
                printed = (
                    _console(text, folder, known)
                    if block.language == "console"
                    else _execute(
                        [sys.executable, "-c", text] if block.language == "python" else ["sh", "-euc", text],
                        folder,
                        known,
                    )
                )
            elif block.kind == "answer":
                _compare(block, printed)
        except DocumentError as error:
            raise DocumentError(f"line {block.line}: {error}") from None
    return count


def differences(shown: Any, real: Any, where: str = "$") -> Iterator[str]:
    """Yield the differences between shown and real JSON; ``"..."`` matches any value, or the rest of a list."""
    if shown == "...":
        return
    if isinstance(shown, dict) and isinstance(real, dict):
        for key in dict.fromkeys((*shown, *real)):
            if key not in real or key not in shown:
                yield f"{where}.{key} is only in {'the document' if key in shown else 'the real answer'}"
            else:
                yield from differences(shown[key], real[key], f"{where}.{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        rest = shown[-1:] == ["..."]
        if len(real) < len(shown) - rest or (len(real) > len(shown) and not rest):
            yield f"{where} has {len(real)} items, not {len(shown) - rest}"
        for i, (one, other) in enumerate(zip(shown[: len(shown) - rest], real, strict=False)):
            yield from differences(one, other, f"{where}[{i}]")
    elif isinstance(shown, str) and isinstance(real, str):
        if not _matches(shown, real):
            yield f"{where} is {real!r}, not {shown!r}"
    elif _is_number(shown) and _is_number(real):
        if abs(shown - real) > TOLERANCE:
            yield f"{where} is {real}, not {shown}"
    elif type(shown) is not type(real) or shown != real:
        yield f"{where} is {real!r}, not {shown!r}"


def _compare(block: Block, printed: str) -> None:
    if block.language != "json":
        if not _matches(block.text, printed):
            raise DocumentError(f"shown is\n{block.text}but printed was\n{printed}")
        return
    try:
        real = json.loads(printed)
    except ValueError:
        raise DocumentError(f"JSON is shown, but printed was\n{printed}") from None
    if different := list(differences(json.loads(block.text), real)):
        raise DocumentError("\n".join((*different, f"the whole answer: {json.dumps(real, ensure_ascii=False)}")))


def _console(text: str, folder: Path, environment: Mapping[str, str]) -> str:
    printed = ""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r"\\\n(?:> )?", " ", part).partition("\n")
        printed = _execute(["sh", "-euc", command], folder, environment)
        if shown.strip() and not _matches(shown, printed):
            raise DocumentError(f"after `{command}` is shown\n{shown}but printed was\n{printed}")
    return printed


def _execute(command: list[str], folder: Path, environment: Mapping[str, str], limit_s: float = 300) -> str:
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, encoding="utf-8", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise DocumentError(f"not done after {limit_s:g} s: {command[-1]}") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise DocumentError(f"ended with {process.returncode}: {command[-1]}\n{out}{err}")
    return out


def _matches(shown: str, real: str) -> bool:
    return doctest.OutputChecker().check_output(
        shown.strip(), real.strip(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.DONT_ACCEPT_TRUE_FOR_1
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
