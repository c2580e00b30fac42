"""The loudspeakers of surround sound, and their weights in a mix of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.types import Samples

_FRONT, _SIDE = 2**-0.5, 0.5

_WEIGHTS: dict[str, float] = {
    "FC": 1.0,
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "WL", "WR"), _FRONT),
    **dict.fromkeys(("BL", "BR", "BC", "SL", "SR", "SDL", "SDR", "SSL", "SSR"), _SIDE),
    **dict.fromkeys(("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR", "TSL", "TSR", "BFC", "BFL", "BFR"), _SIDE),
    **dict.fromkeys(("LFE", "LFE2"), _SIDE),  # if they contain more than low frequencies
}
"""The weight of each position, by FFmpeg's names: the coefficients of ITU-R BS.775-3, annex 4, for one loudspeaker. The
dialogue of films is in the center (``FC``). Positions that the recommendation does not know have the weight of those
beside them."""

LOW_FREQUENCY_POSITIONS = ("LFE", "LFE2")
"""The positions of loudspeakers for low frequencies only."""

_MIN_HIGH_FREQUENCY_RATIO = 0.02
"""The minimum energy of the difference of successive samples, relative to that of the samples, of sound that is not
only low. A sine of 360 Hz has this ratio; those of up to 120 Hz, which an LFE channel may contain, have about a tenth
of it or less, and voices have more."""

_NOISE_FLOOR = 1e-6
"""The mean square below which the difference is noise (-60 dB of full scale)."""


def is_surround(positions: Sequence[str]) -> bool:
    """Return whether these are more than two loudspeakers, all of them known."""
    return len(positions) > 2 and all(position in _WEIGHTS for position in positions)


class LowFrequencyChannels:
    """Finds out which channels contain only low frequencies, as the LFE channel of surround sound does.

    Some recorders store the sound of several microphones under the names of a surround layout. A channel that is called
    LFE but contains other sound is then a microphone, and counts like any other one from there on.
    """

    def __init__(self) -> None:
        self._microphones: set[int] = set()

    def find(self, block: NDArray[np.float32], positions: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of the channels that contain only low frequencies so far.

        Args:
            block: The next samples, shape (samples, channels).
            positions: The position of each channel.
        """
        if not is_surround(positions):
            return ()
        named = [index for index, position in enumerate(positions) if position in LOW_FREQUENCY_POSITIONS]
        self._microphones.update(index for index in named if _has_more_than_low(block[:, index]))
        return tuple(index for index in named if index not in self._microphones)


def mix_weights(positions: Sequence[str], channels: int, low_frequency: Sequence[int]) -> Samples:
    """Return the weight of each channel in the mix, shape (channels,); their sum is 1.

    Args:
        positions: The positions of the channels; empty if they are unknown. All weights are then equal.
        channels: The number of channels.
        low_frequency: The indices of channels that contain only low frequencies, and are left out.
    """
    weights = np.ones(channels, dtype=np.float32)
    if is_surround(positions):
        weights = np.array([_WEIGHTS[position] for position in positions], dtype=np.float32)
        weights[list(low_frequency)] = 0.0
    total = weights.sum()
    return np.full(channels, 1.0 / channels, dtype=np.float32) if total == 0 else weights / total


def _has_more_than_low(samples: Samples) -> bool:
    if len(samples) < 2:
        return False
    difference = np.diff(samples)
    energy = float(difference @ difference)
    return energy > _NOISE_FLOOR * len(difference) and energy > _MIN_HIGH_FREQUENCY_RATIO * float(samples @ samples)
