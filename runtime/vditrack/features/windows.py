"""Windows of frames over clips and streams."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any, TypeVar

from vditrack.arrays import Frame
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, interpolate_frames
from vditrack.inference.session import Resident, State

Unit = TypeVar("Unit")
"""A frame or a latent."""


class SlidingWindow:
    """Causal features of a stream: a frame's map is that of the newest latent in its window.

    Before the window is full, its first latent is repeated for the missing ones. Where latents
    share frames, the newest frame is repeated for those that its group still lacks, so that every
    frame has a map; the latent of the whole group is kept.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Start before the first frame."""
        self._extractor = extractor
        length = extractor.window if extractor.encoder.windowed else extractor.latents
        self._kept: deque[Any] = deque(maxlen=length - 1)
        self._group: list[Frame] = []
        self._state: State | None = None

    def copy(self) -> "SlidingWindow":
        """Return a window with the same content, which goes on independently."""
        other = copy(self)
        other._kept = self._kept.copy()
        other._state = None if self._state is None else self._state.copy()
        return other

    @property
    def newest_nbytes(self) -> int:
        """Memory that the newest frame added to the state, in bytes."""
        newest = self._group[-1:] or list(self._kept)[-1:]
        state = 0 if self._state is None else self._state.nbytes
        return sum(array.nbytes for array in newest) + state

    def push(self, frame: Frame) -> FeatureMap:
        """Return the map of the next frame, uint8 [H, W, 3] RGB."""
        resized = self._extractor.resize(frame)
        windowed = self._extractor.encoder.windowed
        latents = self._encode_window(resized) if windowed else self._encode_newest(resized)
        return self._extractor.describe(latents)[-1]

    def _encode_window(self, frame: Frame) -> list[Resident]:
        """Encode all frames of the window that ends with the frame."""
        window = self._window(frame)
        self._kept.append(frame)
        return list(self._extractor.encoder.encode_clip(window))

    def _encode_newest(self, frame: Frame) -> list[Resident]:
        """Encode the newest frames alone, and keep their latent once their group is complete."""
        encoder = self._extractor.encoder
        group = [*self._group, frame]
        complete = self._state is None or len(group) == encoder.frames
        latent, self._state = encoder.encode(group, self._state, keep=complete)
        window = self._window(latent)
        self._group = [] if complete else group
        if complete:
            self._kept.append(latent)
        return window

    def _window(self, newest: Unit) -> list[Unit]:
        if not self._kept:
            self._kept.extend([newest] * (self._kept.maxlen or 0))
        return [*self._kept, newest]


def clip_features(
    extractor: FeatureExtractor, frames: Frame | Sequence[Frame]
) -> Iterator[FeatureMap]:
    """Yield one feature map for each frame of a clip, from windows that also look ahead.

    If a window describes all its frames, windows overlap, by one latent as in HeFT or as the bundle
    says, and each is encoded from its own beginning. Otherwise windows advance by as many frames as
    they describe, the encoder runs through the clip, and the clip's first frame is repeated before
    it. The last window is moved back so that it ends with the clip. If a clip is shorter than one
    window, its last frame is repeated.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB, or T frames [H, W, 3].

    """
    encoder = extractor.encoder
    resized = (extractor.resize(frame) for frame in frames)
    if encoder.windowed or (encoder.cached and extractor.described == extractor.window):
        size = (extractor.window, extractor.described, extractor.overlap)
        maps = describe_in_windows(resized, *size, extractor.describe_frames)
    else:
        latents = encoder.encode_clip(resized)
        size = (extractor.latents, extractor.described_latents, extractor.overlap)
        of_latents = describe_in_windows(latents, *size, extractor.describe)
        maps = interpolate_frames(of_latents, extractor.temporal_stride)
    # The frames of the last latent may go on beyond the clip.
    return islice(maps, len(frames))


def describe_in_windows(
    units: Iterable[Unit],
    length: int,
    described: int,
    overlap: int,
    describe: Callable[[Sequence[Unit]], Iterable[FeatureMap]],
) -> Iterator[FeatureMap]:
    """Yield the maps of frames or latents in order.

    Args:
        units: frames or latents.
        length: units in a window.
        described: units at the end of a window that get maps.
        overlap: units that consecutive windows share, if a window describes all its units.
        describe: returns the maps of a window's newest units.

    """
    window: deque[Unit] = deque(maxlen=length)
    waiting, needed = 0, described
    for newest in units:
        if not window:
            window.extend([newest] * (length - described))
        window.append(newest)
        waiting += 1
        if waiting == needed:
            yield from islice(describe(list(window)), described - waiting, None)
            waiting, needed = 0, described if described < length else max(1, length - overlap)
    if waiting:
        missing = length - len(window)
        filled = list(window) + [window[-1]] * missing
        end = described - missing
        yield from islice(describe(filled), end - waiting, end)


def causal_features(extractor: FeatureExtractor, frames: Iterable[Frame]) -> Iterator[FeatureMap]:
    """Yield one feature map for each frame, from the window that ends with it, as in a stream."""
    window = SlidingWindow(extractor)
    return (window.push(frame) for frame in frames)
