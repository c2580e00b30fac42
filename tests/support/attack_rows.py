"""A row of the tables of hostile inputs in ``docs/security.md``.

A row has an answer that a test compares with what the decoder (``tests/unit/audio/test_attacks.py``) or the running
service (``tests/api/test_attacks.py``) answers, or it names the tests that check what its answer says.
"""

from __future__ import annotations

from dataclasses import dataclass

READ = "read"
"""The answer of the decoder to a file that it reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """One hostile input."""

    attack: str
    answer: str = ""
    """What happens, in words."""

    tests: tuple[str, ...] = ()
    """The tests that check the answer, below ``tests``."""

    decoder: str | None = None
    """The code of the decoder's error, or ``READ``."""

    service: str | None = None
    """The status of the response, and the code of the error if it is one."""

    @property
    def shown(self) -> str:
        """The whole answer."""
        found = self.decoder or self.service
        if found is None:
            return self.answer
        status, _, code = found.rpartition(" ") if self.service else ("", "", found)
        short = f"{status} `{code}`".strip() if code != READ and not code.isdecimal() else code.capitalize()
        return f"{short}: {self.answer}" if self.answer else short


def decoder(answer: str, attack: str, note: str = "") -> Row:
    return Row(attack, note, decoder=answer)


def service(answer: str, attack: str, note: str = "") -> Row:
    return Row(attack, note, service=answer)


def tested(attack: str, answer: str, *tests: str) -> Row:
    return Row(attack, answer, tests)
