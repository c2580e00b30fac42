"""Which of the two diarizers has the say: the rule on doubles, and both for real."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

from diarist.errors import Cancelled, ConfigurationError, InvalidOption, ModelError
from diarist.protocols import Diarizer
from diarist.settings import Settings, load_settings
from diarist.types import Audio, Diarization, Progress, Span, SpeakerHints, Turn

pytestmark = pytest.mark.nemo

AUDIO = Audio(np.ones(16_000, dtype=np.float32))


@dataclass
class Scripted:
    """Finds as many speakers as it was told to."""

    name: str
    finds: int
    max_speakers: int = 4
    max_duration: float | None = None
    requests: list[SpeakerHints] = field(default_factory=list)

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        self.requests.append(hints)
        for done in (0.0, 0.5, 1.0):
            progress("segmentation", done)
        if self.name == "clustering":
            progress("embedding", 1.0)
        turns = tuple(Turn(Span(i / 100, i / 100 + 0.01), f"SPEAKER_{i:02d}") for i in range(self.finds))
        return Diarization(turns, diarizer=self.name)


def decide(few: int, many: int, progress=lambda _stage, _done: None, max_duration=None, **hints: int):
    """Who was asked, who is believed, and how many speakers there are."""
    from diarist.engines.nemo.auto_diarizer import AutoDiarizer

    first, second = Scripted("sortformer", few, max_duration=max_duration), Scripted("clustering", many)
    found = AutoDiarizer(first, second).diarize(AUDIO, SpeakerHints(**hints), progress)
    assert all(requests == SpeakerHints(**hints) for requests in first.requests + second.requests)
    return len(first.requests), len(second.requests), found.diarizer, len(found.speakers)


@pytest.mark.parametrize(
    ("few", "many", "hints", "outcome"),
    [
        # fewer than it can tell apart: that is all
        (0, 9, {}, (1, 0, "sortformer", 0)),
        (3, 9, {}, (1, 0, "sortformer", 3)),
        (3, 9, {"min_speakers": 3}, (1, 0, "sortformer", 3)),
        (3, 9, {"max_speakers": 9}, (1, 0, "sortformer", 3)),
        # as many as it can tell apart: there may be more
        (4, 6, {}, (1, 1, "clustering", 6)),
        (4, 5, {"min_speakers": 2, "max_speakers": 5}, (1, 1, "clustering", 5)),
        (4, 4, {}, (1, 1, "sortformer", 4)),
        (4, 2, {}, (1, 1, "sortformer", 4)),
        # the caller knows that there are no more
        (4, 9, {"num_speakers": 4}, (1, 0, "sortformer", 4)),
        (4, 9, {"max_speakers": 4}, (1, 0, "sortformer", 4)),
        (2, 9, {"num_speakers": 2}, (1, 0, "sortformer", 2)),
        # the caller knows of more than it finds
        (3, 4, {"num_speakers": 4}, (1, 1, "clustering", 4)),
        (3, 5, {"min_speakers": 4}, (1, 1, "clustering", 5)),
        (3, 3, {"num_speakers": 4}, (1, 1, "sortformer", 3)),
        (0, 2, {"num_speakers": 2}, (1, 0, "sortformer", 0)),
        # the caller knows that there are more than it can tell apart
        (4, 5, {"num_speakers": 5}, (0, 1, "clustering", 5)),
        (4, 7, {"min_speakers": 5}, (0, 1, "clustering", 7)),
    ],
)
def test_who_has_the_say(few, many, hints, outcome):
    assert decide(few, many, **hints) == outcome


def test_a_recording_too_long_for_the_first_goes_to_the_second():
    assert decide(2, 3, max_duration=0.5) == (0, 1, "clustering", 3)
    assert decide(2, 3, max_duration=1.0) == (1, 0, "sortformer", 2)


@pytest.mark.parametrize(
    ("few", "many", "hints"),
    [
        (3, 9, {}),
        (4, 6, {}),
        (4, 2, {}),
        (2, 3, {"num_speakers": 3}),
        (4, 9, {"max_speakers": 4}),
        (4, 9, {"num_speakers": 9}),
    ],
)
def test_progress_never_falls_and_comes_to_the_end(few, many, hints):
    reports = defaultdict[str, list[float]](list)
    decide(few, many, lambda stage, done: reports[stage].append(done), **hints)
    for done in reports.values():
        assert done == sorted(done)
        assert done[-1] == 1.0
    assert set(reports["segmentation"]) >= {0.0, 1.0}


def test_the_log_says_who_had_the_say(caplog):
    caplog.set_level(logging.INFO, "diarist")
    decide(4, 6)
    decide(2, 6)
    decide(4, 6, num_speakers=6)
    lines = [record.getMessage() for record in caplog.records if record.name == "diarist.engines.nemo.auto_diarizer"]
    assert [line.partition(":")[0] for line in lines] == [
        "Diarized by clustering", "Diarized by sortformer", "Diarized by clustering",
    ]  # fmt: skip
    assert "clustering found 6" in lines[0]
    assert "at least 6 speakers" in lines[2]


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, _ = soundfile.read(sample_recording, dtype="float32")
    return Audio(samples)


def configured(nemo_models, folder: Path, onset: float) -> Settings:
    """Both diarizers from small real models; how many speakers Sortformer finds goes by its onset."""
    (folder / "diar_infer_own.yaml").write_text(
        f"""\
diarizer:
  vad: {{model_path: {nemo_models["frame_vad"]}, parameters: {{onset: 0.0, offset: 0.0}}}}
  speaker_embeddings:
    model_path: {nemo_models["speaker"]}
    parameters: {{window_length_in_sec: [1.5], shift_length_in_sec: [0.75], multiscale_weights: [1]}}
"""
    )
    (folder / "sortformer_own.yaml").write_text(f"parameters: {{onset: {onset}, offset: {onset}}}\n")
    return load_settings(
        engine="nemo", model_config_dir=folder, diar_config="own", sortformer_config="own",
        sortformer_model=str(nemo_models["sortformer"]), nemo_device="cpu", cpu_threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def everybody(nemo_models, tmp_path_factory) -> Diarizer:
    """Every output of Sortformer speaks."""
    from diarist.engines.nemo.auto_diarizer import load

    loaded = load(configured(nemo_models, tmp_path_factory.mktemp("everybody"), 0.1))
    assert {model.role for model in loaded.models} == {"diarization", "vad", "embedding"}
    assert loaded.device == "cpu"
    return loaded.part


@pytest.fixture(scope="module")
def somebody(nemo_models, tmp_path_factory) -> Diarizer:
    """One output of Sortformer speaks."""
    from diarist.engines.nemo.auto_diarizer import load

    return load(configured(nemo_models, tmp_path_factory.mktemp("somebody"), 0.55)).part


def run(diarizer: Diarizer, audio: Audio, progress=lambda _stage, _done: None, **hints: int) -> Diarization:
    return diarizer.diarize(audio, SpeakerHints(**hints), progress)


@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_a_number_that_sortformer_can_tell_apart_is_its_own(everybody, call, wanted):
    found = run(everybody, call, num_speakers=wanted)
    assert (found.diarizer, len(found.speakers)) == ("sortformer", wanted)


@pytest.mark.parametrize("hints", [{"num_speakers": 5}, {"min_speakers": 6, "max_speakers": 6}])
def test_a_higher_number_is_clusterings_and_met(everybody, call, hints):
    found = run(everybody, call, **hints)
    assert found.diarizer == "clustering"
    assert len(found.speakers) == max(hints.values())


def test_few_speakers_leave_clustering_out(somebody, call):
    stages: set[str] = set()
    found = run(somebody, call, lambda stage, _done: stages.add(stage))
    assert found.diarizer == "sortformer"
    assert 1 <= len(found.speakers) < 4
    assert stages == {"segmentation"}


def test_all_speakers_of_sortformer_make_clustering_count(everybody, call):
    reports = defaultdict[str, list[float]](list)
    found = run(everybody, call, lambda stage, done: reports[stage].append(done))
    assert "embedding" in reports
    assert found.diarizer == ("clustering" if len(found.speakers) > 4 else "sortformer")
    for done in reports.values():
        assert done == sorted(done)
        assert 0 <= done[0] <= done[-1] <= 1
    again = run(everybody, call)
    assert (again.turns, again.diarizer) == (found.turns, found.diarizer)


def test_cancelled_goes_through_from_either(everybody, call):
    for stop_at in ("segmentation", "embedding"):

        def progress(stage, _done, stop_at=stop_at):
            if stage == stop_at:
                raise Cancelled(stage)

        with pytest.raises(Cancelled, match=stop_at):
            run(everybody, call, progress)


def test_silence_has_no_turns(everybody):
    assert run(everybody, Audio(np.zeros(48_000, dtype=np.float32))).turns == ()


def test_what_is_wrong_with_either_shows_when_it_is_loaded(nemo_models, tmp_path):
    from diarist.engines.nemo.auto_diarizer import load

    settings = configured(nemo_models, tmp_path, 0.5)
    with pytest.raises(ModelError):
        load(settings.model_copy(update={"sortformer_model": str(tmp_path / "absent.nemo")}))
    with pytest.raises(ConfigurationError):
        load(settings.model_copy(update={"sortformer_model": str(nemo_models["speaker"])}))
    with pytest.raises(ConfigurationError, match="diar_infer_other"):
        load(settings.model_copy(update={"diar_config": "other"}))


def test_sortformer_alone_points_to_it(nemo_models, tmp_path, call):
    from diarist.engines.nemo.sortformer import load

    with pytest.raises(InvalidOption, match="DIARIZER to auto"):
        run(load(configured(nemo_models, tmp_path, 0.5)).part, call, num_speakers=5)
