"""Side by side: sets, long recordings, answers and the page that is written."""

from __future__ import annotations

import json
import sys
import wave
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("psutil")

import environments
import growth
import running
import sets
import systems
import tables
from diarist.evaluation.scoring import Score
from diarist.evaluation.stretches import Stretch
from diarist.formats import rttm
from diarist.types import RecognizedWord, Span, Turn
from peers import exchange


def test_the_longest_beginning_decides_the_set(tmp_path):
    (tmp_path / "sets.toml").write_text('calls = ["a"]\nmeeting = ["ab"]\n')
    named = sets.read_sets(tmp_path)
    assert [sets.set_of(name, named) for name in ("ax", "abx", "x")] == ["calls", "meeting", "other"]
    assert sets.set_of("sim2t", sets.DEFAULT) == "simulated"


@pytest.mark.parametrize("text", ["meeting = 3", "meeting = [", 'meeting = "ES"'])
def test_sets_that_cannot_be_read_are_named(tmp_path, text):
    (tmp_path / "sets.toml").write_text(text)
    with pytest.raises(SystemExit, match=r"sets\.toml"):
        sets.read_sets(tmp_path)


def test_a_stretched_recording_has_its_length_and_its_speakers(tmp_path):
    samples = np.linspace(-0.5, 0.5, 16_000 * 4, dtype=np.float32)
    reference = "SPEAKER x 1 0.000 1.500 <NA> <NA> ann <NA> <NA>\nSPEAKER x 1 2.000 1.500 <NA> <NA> bob <NA> <NA>\n"
    path = growth.stretch(samples, reference, 0.25, tmp_path)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 15 * 16_000
    turns = rttm.parse(path.with_suffix(".rttm").read_text())
    assert {turn.speaker for turn in turns} == {"ann", "bob"}
    assert turns[2].span.start == pytest.approx(4.5, abs=0.001)
    assert max(turn.span.end for turn in turns) <= 15.0


def test_words_of_another_go_to_the_speakers_of_the_turns():
    turns = (Turn(Span(0, 2), "a"), Turn(Span(2, 4), "b"))
    heard = [
        running.SpokenWord(RecognizedWord(text, Span(at, at + 0.3), 0.9), None)
        for text, at in ((" hi", 0.5), (" yes", 3.0))
    ]
    diarized = running.Output(turns, (), 1.0, 1.0, {})
    recognised = running.Output((), tuple(heard), 2.0, 2.0, {})
    found = systems.answer(diarized, recognised, 4.0)
    assert [(word.text, word.speaker) for word in found.words] == [("hi", "a"), ("yes", "b")]
    assert found.took == 3.0
    assert systems.answer(diarized, None, 4.0).stretches is None


def test_words_in_a_row_are_joined_until_a_pause_or_another_speaker():
    words = [
        Stretch(Span(at, at + 0.4), who, text)
        for at, who, text in ((0, "a", "x"), (0.5, "a", "y"), (1, "b", "z"), (3, "b", "w"))
    ]
    assert [said.text for said in systems.joined(words)] == ["x y", "z", "w"]


def test_a_system_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "run_bad.py").write_text("raise RuntimeError('no such model')\n")
    monkeypatch.setattr(running, "PEERS", tmp_path)
    run = running.run("bad", sys.executable, running.task_of([tmp_path / "a.wav"], 1, "en", False, tmp_path), 60)
    assert run.failure == "RuntimeError: no such model"
    assert not run.outputs
    assert run.startup is None


def test_what_a_system_writes_is_read_back(tmp_path, monkeypatch):
    (tmp_path / "exchange.py").write_text((running.PEERS / "exchange.py").read_text())
    (tmp_path / "run_good.py").write_text(
        "import exchange\n"
        "heard = exchange.Heard(((0.5, 1.25, 'a b'),), ((0.5, 0.75, ' hi', 0.5, None),), {'speech': 0.25})\n"
        "exchange.serve(lambda task: lambda path: heard)\n"
    )
    monkeypatch.setattr(running, "PEERS", tmp_path)
    run = running.run("good", sys.executable, running.task_of([tmp_path / "a.wav"], 1, None, True, tmp_path), 60)
    assert run.failure is None
    output = run.outputs["a"]
    assert output.turns == (Turn(Span(0.5, 1.25), "a_b"),)
    assert output.words == (running.SpokenWord(RecognizedWord(" hi", Span(0.5, 0.75), 0.5), None),)
    assert output.stages == {"speech": 0.25}
    assert run.startup > 0


def test_a_system_that_cannot_be_installed_says_why(tmp_path, monkeypatch):
    (tmp_path / "odd.txt").write_text("./there-is-no-such-folder\n")
    monkeypatch.setattr(environments, "PEERS", tmp_path)
    with pytest.raises(environments.NotInstalled, match="odd cannot be installed"):
        environments.prepare("odd", tmp_path / "made", "torch")


def test_the_page_tells_of_failures_and_of_a_busy_machine():
    score = Score(
        recordings=1, seconds=60, speakers=2, found=2, exact=1, speech=50, missed=5, collar_speech=40, collar_missed=1
    )
    one = {"score": asdict(score), "wall_s": 6.0, "cpu_s": 3.0, "stages_s": {"speech": 2.0}}
    system = {
        "title": "A|B",
        "speakers": True,
        "failure": "out of memory",
        "startup_s": None,
        "peak_mb": 9,
        "recordings": {"x": one},
    }
    machine = {
        "processor": "p",
        "cores": 2,
        "memory_gb": 8,
        "system": "s",
        "python": "3",
        "load_per_core": 1.0,
        "busy": True,
    }
    result = {
        "made": "2026-01-01", "commit": "abc", "machine": machine, "threads": 1, "sets": {"x": "other"}, "lengths": {"x": 60.0},  # noqa: E501
        "not_run": {"c": "no wheel"}, "systems": {"a": system}, "growth": [],
    }  # fmt: skip
    page = tables.report(json.loads(json.dumps(result)), ["x.svg"])
    for part in ("machine was busy", "no wheel", "out of memory", "| A/B | 10.0 | 2.5 |", "3.00", "![x.svg](x.svg)"):
        assert part in page
    assert tables.stage_seconds(system) == {"speech": 2.0, "rest": 4.0}


def test_short_turns_are_left_out_of_rttm():
    assert exchange.rttm("x", ((0.0, 0.0001, "a"),)) == ""
