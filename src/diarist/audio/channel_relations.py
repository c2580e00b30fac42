"""How two channels of a recording are related, by their levels and the correlation between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Relation: TypeAlias = Literal["copy", "shared", "crosstalk", "independent"]
"""``copy``: one channel contains the other one. ``shared``: both contain the same people, or too little is known.
``crosstalk`` and ``independent``: each contains one party, with or without a faint copy of the other one."""

MAX_LAG_SAMPLES = 2_400
"""The maximum delay between channels, 0.3 s."""

LONG_LAG_SAMPLES = 160
"""With a longer delay, 0.02 s, the level difference of a window varies. Such a delay in one direction only is that of a
copy or an echo, but not that of crosstalk in both directions."""

LAG_TOLERANCE_SAMPLES = 2

MIN_LAG_SHARE = 0.02
"""The minimum share of the coherent windows that have a lag in common, if it is real. By chance it is 0.001."""

MIN_PARTY_SHARE = 0.02
"""The minimum share of the active windows that belong to a party."""

MIN_PARTY_WINDOWS = 2

MIN_RUN_WINDOWS = 3
"""The minimum number of successive windows of speech, 1.5 s. Knocks and clicks are shorter."""

MIN_RUN_SHARE = 0.3
"""The minimum share of the active windows of a channel with speech that are in such runs."""

MIN_COPY_SHARE = 0.8
"""The minimum share of the windows with sound in both channels in which a copy has its one lag."""

MAX_COPY_SPREAD_DB = 3.0
"""The maximum difference of the 10th and the 90th percentile of the level difference between a channel and its copy."""

MAX_PARTIAL_COPY_DB = 3.0
"""A channel that contains the other one and more is at most this much quieter than it. Otherwise the copy is an
echo."""

MIN_ALONE_DB = 10.0
"""The minimum level difference, relative to that of the copy, where one of the two channels is active alone."""

MIN_RELATED_SHARE = 0.3
"""The minimum share of a party's windows that are coherent, if the other channel contains its sound."""

MIN_INDEPENDENT_DB = 6.0
"""The minimum distance of the level differences of two parties without crosstalk. That of unrelated voices at once is
above 10 dB; that of distant microphones, whose sound is not coherent, below 3 dB."""

MIN_CROSSTALK_DB = 16.0
"""The minimum distance of the level differences of two parties with crosstalk. It is 20 dB with crosstalk of -10 dB in
both directions, and 12 dB with two microphones that are twice as far from one speaker as from the other."""

MIN_ECHO_DB = 8.0
"""The minimum attenuation of crosstalk in one direction."""

MAX_SHARED_SHARE = 0.05
"""The maximum share of the active windows with sound of somebody else, whom both channels contain at similar levels."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelPair:
    """The windows of two channels. All arrays have shape (windows,)."""

    difference: Floats
    """The level of the first channel relative to that of the second one, in dB."""

    first: Mask
    """Where the first channel is active."""

    second: Mask
    """Where the second channel is active."""

    coherent: Mask
    """Where the correlation is high, if only by chance."""

    lags: NDArray[np.int16]
    """The lag of the highest correlation, in samples, within ``MAX_LAG_SAMPLES``."""

    def relation(self) -> Relation:
        active = self.first | self.second
        needed = max(MIN_PARTY_WINDOWS, math.ceil(MIN_PARTY_SHARE * active.sum()))
        coherent = self.coherent & active
        coherent &= np.isin(self.lags, _common_lags(self.lags[coherent], LAG_TOLERANCE_SAMPLES))
        if self._is_copy(coherent, needed):
            return "copy"
        parties = self._parties(needed, related=coherent.sum() >= needed)
        if parties is None:
            return "shared"
        upper, lower = self._modes(parties)
        first_related, second_related = (bool(coherent[party].mean() >= MIN_RELATED_SHARE) for party in parties)
        related = first_related or second_related
        one_way = related and not (first_related and second_related)
        if (
            upper - lower < (MIN_CROSSTALK_DB if related else MIN_INDEPENDENT_DB)
            or (one_way and (upper if first_related else -lower) < MIN_ECHO_DB)
            or self._has_others(coherent, parties, related=related)
        ):
            return "shared"
        return "crosstalk" if related else "independent"

    def _is_copy(self, coherent: Mask, needed: int) -> bool:
        """Return whether one channel contains all that is in the other one."""
        both = self.first & self.second
        lags = self.lags[both & coherent]
        if both.sum() < MIN_PARTY_WINDOWS or not len(lags):
            return False
        lag = int(np.median(lags))
        if (np.abs(lags - lag) <= LAG_TOLERANCE_SAMPLES).sum() < MIN_COPY_SHARE * both.sum():
            return False
        quiet, level, loud = np.percentile(self.difference[both], [10.0, 50.0, 90.0])
        if abs(lag) > LONG_LAG_SAMPLES and abs(level) <= MAX_PARTIAL_COPY_DB:
            return True
        # Only one of the channels may have more than the other one.
        first_alone = self.first & ~self.second & (self.difference > level + MIN_ALONE_DB)
        second_alone = self.second & ~self.first & (self.difference < level - MIN_ALONE_DB)
        first_has_more, second_has_more = first_alone.sum() >= needed, second_alone.sum() >= needed
        return bool(
            loud - quiet <= MAX_COPY_SPREAD_DB
            and not (first_has_more and second_has_more)
            and (not first_has_more or level >= -MAX_PARTIAL_COPY_DB)
            and (not second_has_more or level <= MAX_PARTIAL_COPY_DB)
        )

    def _parties(self, needed: int, *, related: bool) -> tuple[Mask, Mask] | None:
        """Return the windows of a party on each channel, or None if there are less than needed."""
        if any(_in_runs(mask) < max(needed, MIN_RUN_SHARE * mask.sum()) for mask in (self.first, self.second)):
            return None
        highest = float(np.sort(self.difference[self.first])[-needed])
        lowest = float(np.sort(self.difference[self.second])[needed - 1])
        middle = (highest + lowest) / 2.0
        parties = self.first & (self.difference > middle), self.second & (self.difference < middle)
        # Voices of the other channel make runs too, if it contains them.
        counts = [_in_runs(party) if related else int(party.sum()) for party in parties]
        return None if min(counts) < needed else parties

    def _modes(self, parties: tuple[Mask, Mask]) -> tuple[float, float]:
        """Return the level difference of each party while it speaks alone, which may be rare."""
        upper, lower = (self.difference[party] for party in parties)
        return float(np.percentile(upper, 90.0)), float(np.percentile(lower, 10.0))

    def _has_others(self, coherent: Mask, parties: tuple[Mask, Mask], *, related: bool) -> bool:
        """Return whether both channels contain somebody at similar levels, whose lag is not that of a party."""
        upper, lower = self._modes(parties)
        margin = (upper - lower) / 4.0
        between = coherent & (self.difference <= upper - margin) & (self.difference >= lower + margin)
        if related:
            own = self.lags[coherent & ~between & (parties[0] | parties[1])]
            between &= ~np.isin(self.lags, _common_lags(own, 2 * LAG_TOLERANCE_SAMPLES))
        allowed = max(MAX_SHARED_SHARE * float((self.first | self.second).sum()), MIN_PARTY_WINDOWS)
        return bool(between.sum() > allowed)


def _in_runs(mask: Mask) -> int:
    """Return the number of windows in runs of at least ``MIN_RUN_WINDOWS``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= MIN_RUN_WINDOWS].sum())


def _common_lags(lags: NDArray[np.int16], tolerance: int) -> NDArray[np.intp]:
    """Return the lags that recur, with those that differ from them by at most the tolerance."""
    counts = np.bincount(lags.astype(np.intp) + MAX_LAG_SAMPLES, minlength=2 * MAX_LAG_SAMPLES + 1)
    near = np.convolve(counts, np.ones(2 * LAG_TOLERANCE_SAMPLES + 1, dtype=np.intp), mode="same")
    recurring = (counts > 0) & (near >= max(2, math.ceil(MIN_LAG_SHARE * len(lags))))
    return np.flatnonzero(np.convolve(recurring, np.ones(2 * tolerance + 1), mode="same") > 0.5) - MAX_LAG_SAMPLES
