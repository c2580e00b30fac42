"""The choice between the mix, separate channels and a single channel, by what the channels contain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diarist.audio.channel_detection import ChannelDetector
from diarist.audio.samples import SampleBuffer
from diarist.channels import ChannelChoice, ChannelReason
from diarist.types import Audio, SpeakerHints


class ChannelSelection:
    """Collects the channels of a recording, and chooses which of them to use instead of the mix.

    Args:
        channels: The number of channels.
        hints: What the caller knows about the number of speakers. Separate channels are used only if it is possible
            that each one is one speaker.
        expected_samples: The number of samples that are expected.
        max_in_memory: The maximum number of samples in memory, for all channels together.
        folder: The folder for long recordings, as for ``SampleBuffer``.
        min_free_bytes: The space that stays free there, as for ``SampleBuffer``.
    """

    def __init__(
        self,
        channels: int,
        hints: SpeakerHints,
        expected_samples: int,
        max_in_memory: int,
        folder: Path | None,
        min_free_bytes: int = 0,
    ) -> None:
        self._hints = hints
        self._detector = ChannelDetector(channels)
        self._buffers = [
            SampleBuffer(expected_samples, max_in_memory // channels, folder, min_free_bytes) for _ in range(channels)
        ]
        self._reason: ChannelReason | None = None

    @property
    def channels(self) -> int:
        """The number of channels that are collected; 0 after ``abandon``."""
        return len(self._buffers)

    def add(self, block: NDArray[np.float32]) -> None:
        """Add a block of shape (samples, channels)."""
        if not self._buffers:
            return
        if block.shape[1] != len(self._buffers):
            self.abandon("layout")
            return
        self._detector.add(block)
        for buffer, channel in zip(self._buffers, block.T, strict=True):
            buffer.append(channel)

    def add_silence(self, samples: int) -> None:
        """Add up to a second of silence to all channels."""
        if self._buffers:
            self.add(np.zeros((samples, len(self._buffers)), dtype=np.float32))

    def abandon(self, reason: ChannelReason) -> None:
        """Discard the channels, so that the mix is chosen for this reason."""
        self._reason = reason
        self.close()

    def take(self) -> tuple[ChannelChoice, tuple[Audio, ...]]:
        """Return the choice, and the chosen channels; none if it is the mix."""
        if self._reason is not None:
            return ChannelChoice("auto", "mix", self._reason), ()
        detected = self._detector.finish()
        kept = detected.kept
        if detected.reason in ("mono", "shared"):
            return ChannelChoice("auto", "mix", detected.reason), ()
        if len(kept) > 1:
            lower, upper = self._hints.bounds()
            if not lower <= len(kept) <= (upper or len(kept)):
                return ChannelChoice("auto", "mix", "speakers"), ()
        used: Sequence[SampleBuffer] = [self._buffers[index] for index in kept]
        choice = ChannelChoice("auto", "single" if len(kept) == 1 else "separate", detected.reason)
        return choice, tuple(Audio(buffer.take()) for buffer in used)

    def close(self) -> None:
        """Discard the samples that were not taken."""
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []
