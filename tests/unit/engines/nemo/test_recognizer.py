"""Every kind of NeMo recognizer, end to end on a real call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from diarist.errors import ConfigurationError, EngineUnavailable, InvalidOption
from diarist.types import SAMPLE_RATE, Audio, Recognition, RecognizedWord, Span

pytestmark = pytest.mark.nemo

KINDS = ("ctc", "character_ctc", "rnnt", "tdt", "hybrid")
SPEECH = tuple(Span(start, start + length) for start, length in [(0.5, 3.1), (4.0, 1.2), (7.0, 0.4), (14.4, 3.5),
                                                                (20.3, 0.03), (22.5, 7.2)])  # fmt: skip


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, _ = soundfile.read(sample_recording, dtype="float32")
    return Audio(samples)


@pytest.fixture(scope="module")
def recognizers(nemo_models, nemo_settings):
    from diarist.engines.nemo.recognizer import load

    made = {}

    def of(kind):
        if kind not in made:
            path = str(nemo_models[kind])
            # two threads wait for each other longer than models of this size take
            made[kind] = load(nemo_settings.model_copy(update={"nemo_asr_model": path, "cpu_threads": 1}))
        return made[kind].part

    return of


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def run(recognizer, audio, speech, language=None, progress=lambda *_: None) -> Recognition:
    return recognizer.recognize(audio, speech, language, progress)


def with_batch(recognizer, batch):
    """The same model, so many windows at a time."""
    from diarist.engines.nemo.recognizer import NemoRecognizer

    return NemoRecognizer(recognizer._decoder, recognizer.languages, recognizer._runtime, batch)


def text(words) -> str:
    return "".join(word.text for word in words)


def test_words_of_a_real_call(recognizers, kind, call):
    words = run(recognizers(kind), call, SPEECH).words
    assert len({word.text for word in words}) >= 8, "the model of the test says too little to test anything"
    assert len({word.confidence for word in words}) >= 8
    assert all(0.0 < word.confidence <= 1.0 for word in words)
    assert all(before.span.start <= after.span.start for before, after in pairwise(words))
    assert all(word.text.startswith(" ") and word.text.strip() for word in words)
    near = [Span(span.start - 0.3, span.end + 0.3) for span in SPEECH]
    assert all(any(span.start - 1e-9 <= word.span.start < word.span.end <= span.end + 1e-9 for span in near)
               for word in words if not 2 < word.span.start < 9)  # fmt: skip
    assert {type(edge) for word in words for edge in (word.span.start, word.span.end, word.confidence)} == {float}


def reference(model, samples) -> list[RecognizedWord]:
    """What NeMo's own call says."""
    (hypothesis,) = model.transcribe([samples], timestamps=True, verbose=False, num_workers=0)
    if isinstance(hypothesis, list):
        (hypothesis,) = hypothesis
    found = [word for word in hypothesis.timestamp["word"] if word["word"].strip()]
    return [RecognizedWord(word["word"], Span(float(word["start"]), float(word["end"])), 1.0) for word in found]


@pytest.mark.parametrize("window", [Span(0.0, 30.0), Span(14.2, 18.2), Span(22.0, 29.97)])
def test_one_window_gives_what_nemo_gives(nemo_models, recognizers, kind, call, window):
    """Words are the same. So are times, but for three things that are better here.

    NeMo's CTC word starts where the piece before it starts, and ends where its own last piece starts; its RNNT words
    end a frame after the start of their last piece; words may lie past the end or have no duration.
    """
    from nemo.collections.asr.models import ASRModel

    audio = call.cut(window)
    expected = reference(ASRModel.restore_from(str(nemo_models[kind]), map_location="cpu"), audio.samples)
    found = run(recognizers(kind), audio, (Span(0.0, audio.duration),)).words
    assert text(found).replace(" ", "") == text(expected).replace(" ", "")
    if kind == "character_ctc":  # NeMo puts an apostrophe that begins a word to the word before, mostly
        assert abs(len(found) - len(expected)) <= text(found).count(" '")
        return
    assert [word.text.strip() for word in found] == [word.text for word in expected]
    frame = recognizers(kind)._decoder.frame_step
    for (before, word), other in zip(pairwise([None, *found]), expected, strict=True):
        heard_last = max(other.span.end, other.span.start)
        if kind == "ctc":
            if before is not None:
                assert word.span.start >= other.span.start - 1e-3
            assert word.span.start <= other.span.end + 1e-3 < word.span.end + 2e-3
            continue
        assert word.span.start == pytest.approx(min(other.span.start, audio.duration - frame), abs=1e-3)
        if kind == "tdt":
            ending = min(max(heard_last, word.span.start + frame), audio.duration)
            assert word.span.end == pytest.approx(ending, abs=1e-3)
        else:
            assert word.span.end >= min(heard_last, audio.duration) - 1e-3


@pytest.mark.parametrize("kind", ["rnnt", "tdt"])
def test_probabilities_are_those_that_nemo_tells(nemo_models, recognizers, kind, call):
    from nemo.collections.asr.models import ASRModel
    from omegaconf import open_dict

    audio = call.cut(Span(14.2, 18.2))
    model = ASRModel.restore_from(str(nemo_models[kind]), map_location="cpu")
    config = model.cfg.decoding
    with open_dict(config):
        config.confidence_cfg = {
            "preserve_frame_confidence": True,
            "preserve_token_confidence": True,
            "method_cfg": {"name": "max_prob", "alpha": 1.0},
        }
    model.change_decoding_strategy(config, verbose=False)
    (hypothesis,) = model.transcribe([audio.samples], return_hypotheses=True, verbose=False, num_workers=0)
    classes = len(recognizers(kind)._decoder.vocabulary) + 1  # NeMo puts chance at 0
    expected = [(confidence * (classes - 1) + 1) / classes for confidence in hypothesis.token_confidence]
    (tokens,) = recognizers(kind)._decode([audio.samples], None)
    assert len(tokens) > 5
    assert [token.confidence for token in tokens] == pytest.approx(expected, abs=1e-4)


def test_a_ctc_word_starts_with_its_own_first_frame(recognizers, call):
    """Unlike NeMo's, which starts with the last piece before the pause."""
    recognizer = recognizers("ctc")
    decoder = recognizer._decoder
    audio = call.cut(Span(14.2, 18.2))
    (tokens,) = recognizer._decode([audio.samples], None)
    opening = [token for token in tokens if decoder.vocabulary._entries[token.id].starts_word]
    starts = [word.span.start for word in run(recognizer, audio, (Span(0.0, audio.duration),)).words]
    assert len(starts) > 3
    assert set(starts[1:]) <= {token.start for token in opening}


def test_a_batch_gives_what_one_by_one_gives(recognizers, kind, call):
    one, many = (run(with_batch(recognizers(kind), batch), call, SPEECH).words for batch in (1, 8))
    assert [word.text for word in many] == [word.text for word in one]
    assert [word.span for word in many] == [word.span for word in one]
    assert [word.confidence for word in many] == pytest.approx([word.confidence for word in one], abs=1e-4)


def test_two_runs_are_identical_whatever_came_between(recognizers, kind, call):
    recognizer = recognizers(kind)
    first = run(recognizer, call, SPEECH)
    run(recognizer, call.cut(Span(20.0, 24.0)), (Span(0.0, 4.0),), "en")
    run(recognizer, Audio(np.zeros(SAMPLE_RATE, dtype=np.float32)), (Span(0.0, 1.0),))
    assert run(recognizer, call, SPEECH) == first


def test_threads_in_parallel_get_what_one_gets(recognizers, call):
    """Two kinds at once, for NeMo sets flags of the whole process."""
    jobs = [(recognizers(kind), call.cut(Span(start, start + 6.0))) for kind in ("ctc", "tdt") for start in (3, 14, 22)]

    def work(job):
        recognizer, audio = job
        return run(recognizer, audio, (Span(0.2, 2.0), Span(2.5, 5.8)))

    serial = [work(job) for job in jobs]
    assert len({text(recognition.words) for recognition in serial}) == len(jobs)
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(work, jobs * 5))
    assert parallel == serial * 5


class Scarce:
    """A decoder whose memory holds so many windows."""

    def __init__(self, decoder, room: int) -> None:
        self._decoder = decoder
        self.room = room
        self.calls: list[int] = []

    def __getattr__(self, name):
        return getattr(self._decoder, name)

    def decode(self, signal, lengths, language):
        import torch

        self.calls.append(len(signal))
        if len(signal) > self.room:
            raise torch.OutOfMemoryError("none left")
        return self._decoder.decode(signal, lengths, language)


def scarce(recognizer, room: int):
    from diarist.engines.nemo.recognizer import NemoRecognizer

    decoder = Scarce(recognizer._decoder, room)
    return decoder, NemoRecognizer(decoder, recognizer.languages, recognizer._runtime, 4)


def test_too_little_memory_halves_the_batch(recognizers, call):
    decoder, recognizer = scarce(recognizers("tdt"), 1)
    speech = tuple(Span(start, start + 1.0) for start in range(0, 28, 4))
    assert run(recognizer, call, speech) == run(with_batch(recognizers("tdt"), 1), call, speech)
    assert decoder.calls == [4, 2, *[1] * len(speech)]


def test_too_little_memory_for_one_window(recognizers, call):
    _, recognizer = scarce(recognizers("tdt"), 0)
    with pytest.raises(EngineUnavailable, match="set DEVICE to another device"):
        run(recognizer, call, SPEECH)


def test_windows_of_like_length_are_heard_together(recognizers, call):
    heard = []

    class Listening(Scarce):
        def decode(self, signal, lengths, language):
            heard.extend(lengths.tolist())
            return super().decode(signal, lengths, language)

    from diarist.engines.nemo.recognizer import NemoRecognizer

    recognizer = recognizers("ctc")
    run(NemoRecognizer(Listening(recognizer._decoder, 99), (), recognizer._runtime, 2), call, SPEECH)
    assert len(heard) > 2
    assert heard == sorted(heard, reverse=True)
    assert min(heard) >= SAMPLE_RATE


def test_progress_goes_from_nothing_to_all(recognizers, call):
    speech = tuple(Span(start, start + 1.0) for start in range(0, 28, 4))
    reports = []
    run(with_batch(recognizers("ctc"), 2), call, speech, progress=lambda *report: reports.append(report))
    assert [stage for stage, _ in reports] == ["recognition"] * 5
    assert [done for _, done in reports] == pytest.approx([0.0, 2 / 7, 4 / 7, 6 / 7, 1.0])


def test_nothing_said(recognizers, kind, call):
    assert run(recognizers(kind), call, ()) == Recognition()
    assert run(recognizers(kind), Audio(np.zeros(0, dtype=np.float32)), (Span(0.0, 0.0),)) == Recognition()


@pytest.mark.parametrize("seconds", [1 / SAMPLE_RATE, 0.005, 0.01, 0.1, 0.99])
def test_the_shortest_recordings(recognizers, kind, call, seconds):
    audio = call.cut(Span(16.0, 16.0 + seconds))
    words = run(recognizers(kind), audio, (Span(0.0, audio.duration),)).words
    assert all(0.0 <= word.span.start <= word.span.end <= audio.duration for word in words)


def test_short_windows_are_filled_up_at_their_end(recognizers):
    """NeMo centers them, which would move every word by up to half a second."""
    seen = []

    class Listening(Scarce):
        def decode(self, signal, lengths, language):
            seen.append((signal.numpy().copy(), lengths.tolist()))
            return super().decode(signal, lengths, language)

    from diarist.engines.nemo.recognizer import NemoRecognizer

    recognizer = recognizers("ctc")
    audio = Audio(np.full(800, 0.5, dtype=np.float32))
    run(NemoRecognizer(Listening(recognizer._decoder, 9), (), recognizer._runtime), audio, (Span(0.0, audio.duration),))
    ((signal, lengths),) = seen
    assert (signal.shape, lengths) == ((1, SAMPLE_RATE), [SAMPLE_RATE])
    assert signal[0, :800].tolist() == audio.samples.tolist()
    assert not signal[0, 800:].any()


def languages(recognizer, known):
    from diarist.engines.nemo.recognizer import NemoRecognizer

    return NemoRecognizer(recognizer._decoder, known, recognizer._runtime)


def test_the_language_asked_for_has_to_be_known(recognizers, call):
    recognizer = languages(recognizers("ctc"), ("fr", "de"))
    assert recognizer.languages == ("de", "fr")
    for unknown in ("en", "DE", "", "german"):
        with pytest.raises(InvalidOption, match="de, fr"):
            run(recognizer, call, SPEECH, unknown)
    with pytest.raises(InvalidOption):
        run(recognizer, call, (), "en")


@pytest.mark.parametrize(
    ("known", "asked", "answer"),
    [
        (("de", "fr"), "fr", ("fr", 1.0)),
        (("de", "fr"), None, (None, None)),
        (("de",), None, ("de", 1.0)),
        ((), None, (None, None)),
        ((), "sw", ("sw", 1.0)),
    ],
)
def test_the_language_of_the_answer(recognizers, call, known, asked, answer):
    recognition = run(languages(recognizers("ctc"), known), call, SPEECH, asked)
    assert (recognition.language, recognition.language_probability) == answer


def test_loading_says_what_it_loaded(nemo_models, nemo_settings):
    from diarist.engines.nemo.recognizer import load

    loaded = load(nemo_settings.model_copy(update={"nemo_asr_model": str(nemo_models["hybrid"])}))
    assert loaded.device == "cpu"
    ((info),) = loaded.models
    assert info.role == "recognition"
    assert "hybrid" in info.name


def test_a_model_that_is_no_recognizer_is_refused(nemo_models, nemo_settings):
    from diarist.engines.nemo.recognizer import load

    with pytest.raises(ConfigurationError, match="speaker"):
        load(nemo_settings.model_copy(update={"nemo_asr_model": str(nemo_models["speaker"])}))


def test_nothing_is_printed_and_nothing_is_left(recognizers, kind, call, capfd, tmp_path, monkeypatch):
    recognizer = recognizers(kind)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    capfd.readouterr()
    run(recognizer, call, SPEECH)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def parameters(model) -> Iterator[bool]:
    return (parameter.requires_grad for parameter in model.parameters())


def test_the_model_stays_as_it_was_loaded(recognizers, kind, call):
    model = recognizers(kind)._decoder._model
    before = (model.training, [*parameters(model)], str(model.cfg), id(model.decoding))
    run(recognizers(kind), call, SPEECH)
    assert (model.training, [*parameters(model)], str(model.cfg), id(model.decoding)) == before
    assert not model.training
    assert not any(module.training for module in model.modules())
