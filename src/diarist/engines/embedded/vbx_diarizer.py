"""The diarizer community-1: the models of pyannote's pipeline of that name, and its clustering.

Segmentation in windows of ten seconds, an embedding of each local speaker, VBx, and the assignment of each window's
local speakers to those that VBx found. Bredin, "pyannote.audio 2.1 speaker diarization pipeline" (2023); model card of
pyannote/speaker-diarization-community-1, whose parameters are used. ``docs/models.md`` lists the differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import FoundSpeakers, Plda, SpeakerBounds, find_speakers, l2_normalize
from diarist.engines.device import Device, choose_here
from diarist.engines.embedded import local_speakers
from diarist.engines.embedded.graph_placement import open_segmenter, parallelism_on
from diarist.engines.embedded.local_speaker_embedding import LocalSpeakerEmbedder
from diarist.engines.embedded.parallel import Parallelism
from diarist.engines.embedded.segmentation import (
    GRID,
    LOCAL_SPEAKERS,
    POWERSET,
    WINDOW_FRAMES,
    Segmentation,
    Segmenter,
)
from diarist.engines.embedded.staged_diarizer import StagedDiarizer
from diarist.engines.onnx.session import open_graph
from diarist.engines.speaker_activity import build_diarization, top_speakers, turns_from_frames
from diarist.errors import ModelCorrupt
from diarist.models import ModelStore
from diarist.models.selection import DIARIZER_MODELS
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import Audio, Diarization, Progress, Seconds, SpeakerHints

NAME = "community-1"

MIN_CLUSTERED_SHARE = 0.2
"""A local speaker who speaks alone in a smaller share of the window is not clustered: pyannote's published value."""

MIN_ACTIVITY = 0.1
"""A speaker is not active in a frame with a lower activity, even if the segmentation counts more speakers: it may count
two where both are one speaker."""

MIN_PAUSE: Seconds = 0.4
"""A shorter pause of one speaker is part of the turn, as with the embedded diarizer."""

MIN_TURN: Seconds = 0.1
"""A shorter turn is dropped as noise, as with the embedded diarizer."""

Floats = NDArray[np.float32]
Segment: TypeAlias = Callable[[Audio, Progress], Segmentation]
Embed: TypeAlias = Callable[[Audio, Segmentation, Progress], Floats]


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load the three models from the model store.

    Raises:
        ModelError: A model is missing or damaged.
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    store = ModelStore.of(settings)
    choice = choose_here(settings, "onnxruntime")
    diarizer = open_diarizer(store, choice.device, parallelism_on(choice.device, settings.threads))
    return Loaded(
        diarizer, tuple(store.info(name) for name in DIARIZER_MODELS[NAME]), choice.device.name, choice.notice
    )


def open_diarizer(store: ModelStore, device: Device, parallelism: Parallelism) -> VbxDiarizer:
    """Open the models of a store. Raises the same errors as ``load``."""
    segmentation, embedding, plda = (store.locate(name) for name in DIARIZER_MODELS[NAME])
    return VbxDiarizer(
        open_segmenter(segmentation, device, parallelism),
        LocalSpeakerEmbedder(open_graph(embedding, parallelism.threads, device), workers=parallelism.workers),
        read_plda(plda / "plda"),
    )


def read_plda(folder: Path) -> Plda:
    """Read ``xvec_transform.npz`` and ``plda.npz``.

    Raises:
        ModelCorrupt: They do not contain the parameters of a PLDA.
    """
    parameters = {}
    try:
        for name in ("xvec_transform.npz", "plda.npz"):
            with np.load(folder / name, allow_pickle=False) as arrays:
                parameters.update(arrays)
        return Plda.of(**{name: parameters[name] for name in ("mean1", "lda", "mean2", "mu", "tr", "psi")})
    except (KeyError, ValueError, EOFError, OSError, BadZipFile) as error:
        raise ModelCorrupt(f"{folder} does not contain the parameters of a PLDA: {error}.") from error


class VbxDiarizer(StagedDiarizer[Segmentation]):
    """Diarization with VBx, without PyTorch. It keeps no state between calls."""

    def __init__(self, segmenter: Segmenter, embedder: LocalSpeakerEmbedder, plda: Plda) -> None:
        super().__init__(segmenter, embedder)
        self._plda = plda

    def _diarize(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, segment: Segment, embed: Embed
    ) -> Diarization:
        segmentation = segment(audio, progress)
        count = local_speakers.speaker_count(segmentation)
        if not count.any():
            return Diarization(diarizer=NAME)
        embeddings = embed(audio, segmentation, progress)
        bounds = SpeakerBounds(*hints.bounds())
        found = find_speakers(clustered_embeddings(segmentation, embeddings, bounds), self._plda, bounds)
        progress("clustering", 1.0)
        score = speaker_scores(segmentation, assign_speakers(segmentation, embeddings, found), len(found.centers))
        active = top_speakers(score, np.minimum(count, len(found.centers))) & (score >= MIN_ACTIVITY)
        turns = turns_from_frames(active, GRID, audio.duration, MIN_PAUSE, MIN_TURN)
        activity = np.where(count[:, None] > 0, score.clip(0, 1), np.float32(0))
        diarization = build_diarization(turns, l2_normalize(found.centers), activity, GRID, NAME)
        possible = local_speakers.possible_speech(segmentation, count, audio.duration)
        return replace(diarization, possible_speech=possible)


def clustered_embeddings(segmentation: Segmentation, embeddings: Floats, bounds: SpeakerBounds) -> Floats:
    """Return the embeddings that decide who the speakers are, float32 (local speakers, values): at least one.

    These are the local speakers who speak long enough, or all of them where those are fewer than the bounds require.
    """
    speaking = np.zeros((len(embeddings), LOCAL_SPEAKERS), dtype=np.bool_)
    clear = np.zeros_like(speaking)
    for window, classes in enumerate(segmentation.classes):
        members = POWERSET[classes]
        single = (members * (members.sum(axis=1, keepdims=True) == 1)).sum(axis=0)
        speaking[window] = members.any(axis=0)
        clear[window] = speaking[window] & (single >= MIN_CLUSTERED_SHARE * WINDOW_FRAMES)
    chosen = clear if clear.sum() >= max(2, bounds.min_speakers) else speaking
    return embeddings[chosen]


def assign_speakers(segmentation: Segmentation, embeddings: Floats, found: FoundSpeakers) -> NDArray[np.int64]:
    """Return the speaker of each local speaker, (windows, 3); -1 for those who do not speak.

    Two local speakers of one window are two speakers, and the assignment with the highest sum of cosines is taken. If
    there are more of them than speakers, those that are left over are assigned to the most similar one, because their
    speech must not be lost. If the bounds decided how many speakers there are, each local speaker is assigned to the
    most similar one, because the segmentation and the bounds may contradict each other.
    """
    centers = l2_normalize(found.centers)
    speakers = np.full((len(embeddings), LOCAL_SPEAKERS), -1, dtype=np.int64)
    for window, own in enumerate(embeddings):
        local = np.flatnonzero(POWERSET[segmentation.classes[window]].any(axis=0))
        similarity = l2_normalize(own[local]) @ centers.T
        nearest = np.argmax(similarity, axis=1)
        if not found.forced:
            one_to_one = np.array(local_speakers.assign(similarity), dtype=np.int64)
            nearest = np.where(one_to_one >= 0, one_to_one, nearest)
        speakers[window, local] = nearest
    return speakers


def speaker_scores(segmentation: Segmentation, speakers: NDArray[np.int64], count: int) -> Floats:
    """Return the mean activity of each of ``count`` speakers over the windows, float32 (frames, speakers), 0..1.

    Args:
        segmentation: The activity of local speakers.
        speakers: The speaker of each local speaker, (windows, 3), or -1.
        count: The number of speakers.
    """

    def mapped(window: int) -> Floats:
        activity = np.zeros((WINDOW_FRAMES, count), dtype=np.float32)
        for local, speaker in enumerate(speakers[window]):
            if speaker >= 0:
                own = segmentation.activity[window, :, local]
                activity[:, speaker] = np.maximum(activity[:, speaker], own)
        return activity

    return segmentation.overlap_add(map(mapped, range(len(speakers))), count)
