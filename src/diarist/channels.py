"""How the channels of a recording are used: what callers ask for, and what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ChannelMode: TypeAlias = Literal["mix", "separate", "auto"]
ChannelUse: TypeAlias = Literal["mix", "separate", "single"]
ChannelReason: TypeAlias = Literal[
    "requested", "mono", "silent", "duplicate", "shared", "crosstalk", "parties", "speakers", "layout", "duration"
]


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """How the channels of a recording were used."""

    requested: ChannelMode = "mix"
    used: ChannelUse = "mix"
    """``mix``: the mix of all channels. ``separate``: each channel as one speaker. ``single``: the one channel that
    contains all sound."""

    reason: ChannelReason = "requested"
    """Why: on request, or by what ``auto`` found.

    - ``mono``: The recording has one channel.
    - ``silent``: At most one channel has sound.
    - ``duplicate``: One channel contains what is in all others.
    - ``shared``: Several channels contain the same people, or too little is known.
    - ``crosstalk``: Each channel has one party, and some have a faint copy of another one.
    - ``parties``: Each channel has one party.
    - ``speakers``: Each channel has one party, but another number of speakers was given.
    - ``layout``: The number of channels changes.
    - ``duration``: The recording is too long for separate channels.
    """
