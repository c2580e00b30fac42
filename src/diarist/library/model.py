"""Models that transcribe: ``diarist.load``, and the functions that load a model for one recording."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from diarist.channels import ChannelMode
from diarist.errors import Cancelled, EngineUnavailable
from diarist.library.engine_process import POLL_S, EngineProcess, OnProgress
from diarist.library.messages import Diarize, Load, LoadedModel, Request, Transcribe
from diarist.library.recordings import Recording, recording_file
from diarist.library.results import Diarization, Transcript
from diarist.settings import Settings, load_settings
from diarist.tracks import PartialMode
from diarist.types import ModelInfo, SpeakerHints, TranscribeOptions, Utterance


def load(
    engine: str | None = None,
    model: str | None = None,
    diarizer: str | None = None,
    recognizer: str | None = None,
    device: str | None = None,
    *,
    threads: int | None = None,
    offline: bool = False,
    on_progress: OnProgress | None = None,
    settings: Settings | None = None,
) -> Model:
    """Fetch the models that are missing, and load them.

    Args:
        engine: ``embedded`` or ``nemo``.
        model: The speech recognition model, such as ``large-v3-turbo``; ``diarist models list`` shows all.
        diarizer: The method that tells speakers apart, such as ``community-1``.
        recognizer: ``whisper``, ``nemo`` or ``onnx``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ... or ``coreml``.
        threads: The number of threads for the models; None is one for each core, up to 8.
        offline: Whether to fail if a model is missing, instead of fetching it.
        on_progress: Called with ``loading`` and 0, and while a model is fetched with ``fetching NAME`` and the share of
            it that is done, 0..1. An exception that it raises, such as ``Cancelled``, ends the loading.
        settings: The settings that apply where the arguments before are None. By default they are read from the
            environment and from ``.env`` in the working directory, as by the service and the command line.

    Raises:
        ConfigurationError: A setting is invalid, or a model with this name does not exist.
        ModelError: A model cannot be fetched, or is damaged.
        EngineUnavailable: The engine or the device cannot be used.
    """
    given = {
        "engine": engine, "model": model, "diarizer": diarizer, "recognizer": recognizer, "device": device,
        "cpu_threads": threads,
    }  # fmt: skip
    return Model(_settings(given, settings), offline=offline, on_progress=on_progress)


def transcribe(
    recording: Recording,
    *,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    language: str | None = None,
    channels: ChannelMode = "mix",
    track: int | str | None = None,
    partial: PartialMode = "refuse",
    rate: int | None = None,
    on_progress: OnProgress | None = None,
    on_utterance: Callable[[Utterance], object] | None = None,
    engine: str | None = None,
    model: str | None = None,
    diarizer: str | None = None,
    recognizer: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    offline: bool = False,
    settings: Settings | None = None,
) -> Transcript:
    """Load a model, transcribe one recording, and close the model. Use ``load`` for several recordings.

    The arguments and errors are those of ``load`` and of ``Model.transcribe``. ``on_progress`` is called while models
    are fetched and while the recording is transcribed.
    """
    loaded = load(
        engine, model, diarizer, recognizer, device, threads=threads, offline=offline, on_progress=on_progress,
        settings=settings,
    )  # fmt: skip
    with loaded:
        return loaded.transcribe(
            recording, num_speakers=num_speakers, min_speakers=min_speakers, max_speakers=max_speakers,
            language=language, channels=channels, track=track, partial=partial, rate=rate, on_progress=on_progress,
            on_utterance=on_utterance,
        )  # fmt: skip


def diarize(
    recording: Recording,
    *,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    rate: int | None = None,
    on_progress: OnProgress | None = None,
    engine: str | None = None,
    diarizer: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    offline: bool = False,
    settings: Settings | None = None,
) -> Diarization:
    """Load the models of a diarizer, find who speaks when in one recording, and close them.

    No speech recognition model is fetched or loaded. The arguments and errors are those of ``load`` and of
    ``Model.diarize``.
    """
    given = {"engine": engine, "diarizer": diarizer, "device": device, "cpu_threads": threads}
    with Model(_settings(given, settings), offline=offline, on_progress=on_progress, recognizes=False) as loaded:
        return loaded.diarize(
            recording, num_speakers=num_speakers, min_speakers=min_speakers, max_speakers=max_speakers, rate=rate,
            on_progress=on_progress,
        )  # fmt: skip


class Model:
    """Loaded models, which transcribe any number of recordings. ``diarist.load`` returns one.

    The models run in a process of their own. It ends when the model is closed, when this program ends, and when a call
    is interrupted that cannot stop at once; the next call then loads the models again. Any thread may call a model, and
    one recording is processed at a time: further calls wait. Models in different threads work at the same time.

    Args:
        settings: The settings.
        offline: Whether fetching models over the network is forbidden.
        on_progress: As in ``load``.
        recognizes: Whether the recognizer is loaded; without it there is only ``diarize``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        offline: bool = False,
        on_progress: OnProgress | None = None,
        recognizes: bool = True,
    ) -> None:
        self._settings = settings
        self._offline = offline
        self._recognizes = recognizes
        self._folder = Path.cwd()
        self._lock = threading.Lock()
        self._user: int | None = None
        self._closed = False
        self._process: EngineProcess | None = None
        self._loaded = self._start(on_progress)

    @property
    def device(self) -> str:
        """The device that the models run on: ``cpu``, ``coreml``, or the number and name of a GPU."""
        return self._loaded.device

    @property
    def languages(self) -> tuple[str, ...]:
        """The ISO 639-1 codes of the languages that can be recognized; empty if the model does not list them."""
        return self._loaded.languages

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models with their names, roles and licenses."""
        return self._loaded.models

    def transcribe(
        self,
        recording: Recording,
        *,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        language: str | None = None,
        channels: ChannelMode = "mix",
        track: int | str | None = None,
        partial: PartialMode = "refuse",
        rate: int | None = None,
        on_progress: OnProgress | None = None,
        on_utterance: Callable[[Utterance], object] | None = None,
    ) -> Transcript:
        """Transcribe a recording.

        Args:
            recording: The path of an audio or video file, its bytes, a binary file object (read from its position), or
                samples: an array of int16, or of float in -1..1, of shape (samples,) or (samples, channels).
            num_speakers: The exact number of speakers, if it is known.
            min_speakers: The minimum number of speakers.
            max_speakers: The maximum number of speakers.
            language: The spoken language, such as ``en``, ``en-US`` or ``English``; None or ``auto`` detects it.
            channels: ``mix``; ``separate``, which makes each channel one speaker; or ``auto``.
            track: The audio track: its number from 1, ``default``, ``best`` or ``all``.
            partial: ``accept`` transcribes what there is of a recording that was cut off.
            rate: The samples per second of an array.
            on_progress: Called with the stage and the share of the whole work that is done, 0..1, never falling. It is
                called in the calling thread; an exception that it raises, such as ``Cancelled``, stops the work.
            on_utterance: Called with each utterance as soon as it is final.

        Raises:
            InvalidOption: An argument is invalid.
            AudioError: The recording cannot be used.
            DecoderFailed: The recording could not be decoded in time.
            StorageFull: There is too little space for temporary files.
            EngineUnavailable: The model is closed, or its models cannot be loaded again.
            JobFailed: The process of the models died.
            OSError: The file cannot be read.
            Cancelled: The model was closed meanwhile.
        """
        hints = SpeakerHints(num_speakers, min_speakers, max_speakers)
        options = TranscribeOptions(hints, language, channels, track, partial)  # type: ignore[arg-type]  # it parses the track
        with closing(self._perform(recording, rate, options, on_progress)) as work:
            while True:
                try:
                    utterances = next(work)
                except StopIteration as end:
                    return Transcript.of(end.value)
                if on_utterance is not None:
                    for utterance in utterances:
                        on_utterance(utterance)

    def stream(
        self,
        recording: Recording,
        *,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        language: str | None = None,
        channels: ChannelMode = "mix",
        track: int | str | None = None,
        partial: PartialMode = "refuse",
        rate: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[Utterance, None, Transcript]:
        """Yield the utterances of a recording as soon as they are final, in order, and return the transcript.

        The arguments and errors are those of ``transcribe``. The work goes on while the caller uses an utterance.
        Closing the generator, or dropping it, stops the work. The model cannot be used otherwise until then.
        """
        hints = SpeakerHints(num_speakers, min_speakers, max_speakers)
        options = TranscribeOptions(hints, language, channels, track, partial)  # type: ignore[arg-type]  # it parses the track
        return self._utterances(recording, rate, options, on_progress)

    def diarize(
        self,
        recording: Recording,
        *,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        rate: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Diarization:
        """Find who speaks when, without recognizing words. Channels are mixed.

        The arguments and errors are those of ``transcribe``. A transcript of the same recording can have other turns:
        words that are found around a turn extend it, and speakers are numbered by their first words.
        """
        hints = SpeakerHints(num_speakers, min_speakers, max_speakers)
        with closing(self._perform(recording, rate, hints, on_progress)) as work:
            return Diarization.of(_result(work))

    def close(self) -> None:
        """End the process of the models. A call that is running in another thread raises ``Cancelled``."""
        self._closed = True
        if self._process is not None:
            self._process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _utterances(
        self, recording: Recording, rate: int | None, options: TranscribeOptions, on_progress: OnProgress | None
    ) -> Generator[Utterance, None, Transcript]:
        with closing(self._perform(recording, rate, options, on_progress)) as work:
            while True:
                try:
                    utterances = next(work)
                except StopIteration as end:
                    return Transcript.of(end.value)
                yield from utterances

    def _perform(
        self,
        recording: Recording,
        rate: int | None,
        options: TranscribeOptions | SpeakerHints,
        on_progress: OnProgress | None,
    ) -> Generator[tuple[Utterance, ...], None, Any]:
        with self._exclusive(), recording_file(recording, rate) as path:
            if self._process is None or not self._process.usable:
                self._loaded = self._start(None)
            assert self._process is not None
            request: Request = (
                Diarize(path, options) if isinstance(options, SpeakerHints) else Transcribe(path, options)
            )
            try:
                return (yield from self._process.perform(request, on_progress))
            except Exception as error:
                if self._closed:
                    raise Cancelled("The model was closed while it was used.") from error
                raise
            finally:
                if self._closed:  # perhaps while the process was being started
                    self._process.end()

    def _start(self, on_progress: OnProgress | None) -> LoadedModel:
        """Start the process and load the models."""
        process = self._process = EngineProcess(self._folder)
        level = logging.getLogger("diarist").getEffectiveLevel()
        request = Load(self._settings, self._offline, self._recognizes, level)
        try:
            with closing(process.perform(request, on_progress)) as work:
                loaded: LoadedModel = _result(work)
        except BaseException:
            process.end()
            raise
        return loaded

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Wait until no other thread uses the model.

        Raises:
            EngineUnavailable: The model is closed, or this thread uses it already.
        """
        if self._user == threading.get_ident():
            raise EngineUnavailable("This model is in use by the same thread: finish or close its stream first.")
        acquired = False
        try:
            while not acquired:
                acquired = self._lock.acquire(timeout=POLL_S)
            if self._closed:
                raise EngineUnavailable("This model is closed: load another one.")
            self._user = threading.get_ident()
            yield
        finally:
            if acquired:
                self._user = None
                self._lock.release()


def _result(work: Generator[object, None, Any]) -> Any:
    """Run the work to its end, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def _settings(given: Mapping[str, object], settings: Settings | None) -> Settings:
    base: dict[str, object] = {} if settings is None else dict(settings)
    return load_settings(**base | {name: value for name, value in given.items() if value is not None})
