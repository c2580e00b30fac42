"""What is known of the models that NVIDIA publishes for NeMo: what each is for, its licence, its languages.

Licences and languages are those of the models' own pages (``origin``), which have the last word; where a page could not
be compared, the licence says so. Nothing here imports PyTorch or NeMo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["recognition", "diarization", "embedding", "vad"]
"""What a model is used for."""

CLASSES: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        "recognition": (
            "EncDecCTCModel",
            "EncDecCTCModelBPE",
            "EncDecRNNTModel",
            "EncDecRNNTBPEModel",
            "EncDecRNNTBPEModelWithPrompt",
            "EncDecHybridRNNTCTCModel",
            "EncDecHybridRNNTCTCBPEModel",
            "EncDecHybridRNNTCTCBPEModelWithPrompt",
            "EncDecMultiTaskModel",
        ),
        "diarization": ("SortformerEncLabelModel",),
        "embedding": ("EncDecSpeakerLabelModel",),
        "vad": ("EncDecClassificationModel", "EncDecFrameClassificationModel"),
    }
)
"""The classes of ``nemo.collections.asr.models`` that serve each role, and the only ones that are ever made."""

FORMER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "EncDecMultiClassificationModel": "EncDecFrameClassificationModel",
        "EncDecHybridRNNTCTCModelBPE": "EncDecHybridRNNTCTCBPEModel",
    }
)
"""Classes of older archives, and what they are called now."""

NOTHING_KNOWN = "unknown"
"""Licence of a model that is not in the list."""

_EUROPEAN = (
    "bg", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el", "hu", "it", "lv", "lt", "mt", "pl", "pt", "ro",
    "sk", "sl", "es", "sv", "ru", "uk",
)  # fmt: skip
_FOUR = ("en", "de", "es", "fr")

CC_BY_4 = "CC-BY-4.0"
CC_BY_NC_4 = "CC-BY-NC-4.0"
NVIDIA_OPEN = "NVIDIA Open Model License"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model."""

    name: str
    """On the hub (``nvidia/...``) or in NVIDIA's catalogue."""

    role: Role
    class_name: str
    """Class in ``nemo.collections.asr.models``."""

    licence: str
    origin: str
    """Address of the publisher's page."""

    languages: tuple[str, ...] = ()
    """ISO 639-1; empty where the words do not matter, or where nothing is known."""

    max_speakers: int | None = None
    """The most that a diarizer tells apart; None where there is no bound."""


def find(reference: str) -> KnownModel | None:
    """The published model that a reference means: by its name with or without publisher, or a file named after it.

    That a file is what its name says is taken on trust, for what is shown; what it is used for goes by its content.
    """
    return _by_stem().get(stem(reference))


def stem(reference: str) -> str:
    """``nvidia/X``, ``X`` and ``/models/X.nemo`` as ``x``."""
    return PurePath(reference.replace("\\", "/")).name.lower().removesuffix(".nemo")


def languages_by_name(reference: str) -> tuple[str, ...]:
    """Languages (ISO 639-1) that a name in NVIDIA's fashion tells, ``stt_de_...``; empty where it tells none."""
    match = re.match(r"stt_([a-z]{2}|enes)_", stem(reference))
    if match is None:
        return ()
    # by and ua are countries: the languages are be and uk
    return {"enes": ("en", "es"), "by": ("be",), "ua": ("uk",)}.get(match[1], (match[1],))


def languages(reference: str) -> tuple[str, ...]:
    """Languages (ISO 639-1) of a recogniser, as far as they are known; empty where nothing is known."""
    model = find(reference)
    return model.languages if model and model.languages else languages_by_name(reference)


def licence(reference: str) -> str:
    """Licence of a model; ``NOTHING_KNOWN`` for one that is not in the list."""
    model = find(reference)
    return model.licence if model else NOTHING_KNOWN


@cache
def _by_stem() -> Mapping[str, KnownModel]:
    return {stem(model.name): model for model in KNOWN}


def _hub(
    name: str,
    role: Role,
    class_name: str,
    licence: str | None,
    languages: tuple[str, ...] = (),
    max_speakers: int | None = None,
) -> KnownModel:
    origin = f"https://huggingface.co/nvidia/{name}"
    said = licence or f"see {origin}"
    return KnownModel(f"nvidia/{name}", role, class_name, said, origin, languages, max_speakers)


def _catalogue(name: str, role: Role, class_name: str, languages: tuple[str, ...] = ()) -> KnownModel:
    origin = f"https://catalog.ngc.nvidia.com/orgs/nvidia/teams/nemo/models/{name}"
    return KnownModel(name, role, class_name, f"see {origin}", origin, languages)


KNOWN: tuple[KnownModel, ...] = (
    _hub("parakeet-tdt-0.6b-v3", "recognition", "EncDecRNNTBPEModel", CC_BY_4, _EUROPEAN),
    _hub("parakeet-tdt-0.6b-v2", "recognition", "EncDecRNNTBPEModel", None, ("en",)),
    _hub("parakeet-tdt_ctc-110m", "recognition", "EncDecHybridRNNTCTCBPEModel", CC_BY_4, ("en",)),
    _hub("parakeet-ctc-1.1b", "recognition", "EncDecCTCModelBPE", None, ("en",)),
    _hub("parakeet-rnnt-1.1b", "recognition", "EncDecRNNTBPEModel", CC_BY_4, ("en",)),
    _hub("canary-1b-v2", "recognition", "EncDecMultiTaskModel", CC_BY_4, _EUROPEAN),
    _hub("canary-1b-flash", "recognition", "EncDecMultiTaskModel", CC_BY_4, _FOUR),
    _hub("canary-180m-flash", "recognition", "EncDecMultiTaskModel", CC_BY_4, _FOUR),
    _catalogue("stt_en_conformer_ctc_large", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalogue("stt_en_citrinet_256", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalogue("stt_en_citrinet_512", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalogue("stt_en_citrinet_1024", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalogue("titanet_large", "embedding", "EncDecSpeakerLabelModel"),
    _catalogue("titanet_small", "embedding", "EncDecSpeakerLabelModel"),
    _catalogue("ecapa_tdnn", "embedding", "EncDecSpeakerLabelModel"),
    _hub("speakerverification_en_titanet_large", "embedding", "EncDecSpeakerLabelModel", CC_BY_4),
    _catalogue("vad_multilingual_marblenet", "vad", "EncDecClassificationModel"),
    _catalogue("vad_telephony_marblenet", "vad", "EncDecClassificationModel"),
    _catalogue("vad_multilingual_frame_marblenet", "vad", "EncDecFrameClassificationModel"),
    _hub("frame_vad_multilingual_marblenet_v2.0", "vad", "EncDecFrameClassificationModel", NVIDIA_OPEN),
    _hub("diar_sortformer_4spk-v1", "diarization", "SortformerEncLabelModel", CC_BY_NC_4, max_speakers=4),
    _hub("diar_streaming_sortformer_4spk-v2", "diarization", "SortformerEncLabelModel", CC_BY_4, max_speakers=4),
    _hub("diar_streaming_sortformer_4spk-v2.1", "diarization", "SortformerEncLabelModel", NVIDIA_OPEN, max_speakers=4),
)
