"""Windows of frames over clips and streams."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any, TypeVar

from vditrack.arrays import Frame
from vditrack.features.chunk_reader import ChunkReader
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, interpolate_frames
from vditrack.inference.session import Resident, State

Unit = TypeVar("Unit")
"""A frame or a latent."""


class SlidingWindow:
    """Causal features of a stream: a frame's map is that of the newest latent in its window.

    The networks run once for each latent. Where latents share frames, a latent is complete with the
    last frame of its group, and its map is that of this frame: latents lie at the first frame and
    at every ``temporal_stride`` frames after it, as in `interpolate_frames`. The frames between
    have no map. Before the window is full, its first latent is repeated for the missing ones.

    If the transformer keeps keys and values, it runs once for each chunk of latents, and the chunk
    has all its maps then.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Start before the first frame."""
        self._extractor = extractor
        length = extractor.window if extractor.encoder.windowed else extractor.latents
        self._kept: deque[Any] = deque(maxlen=length - 1)
        self._group: list[Frame] = []
        self._state: State | None = None
        self._chunk: list[Resident] = []
        self._reader = ChunkReader(extractor) if extractor.keeps_keys else None

    def copy(self) -> "SlidingWindow":
        """Return a window with the same content, which goes on independently."""
        other = copy(self)
        other._kept, other._group = self._kept.copy(), self._group.copy()
        other._state = None if self._state is None else self._state.copy()
        other._chunk = self._chunk.copy()
        other._reader = None if self._reader is None else self._reader.copy()
        return other

    @property
    def describes_each_frame(self) -> bool:
        """Whether every frame has a map."""
        return self._extractor.frames_of_step == 1

    @property
    def keeps_keys(self) -> bool:
        """Whether a copy has keys and values of its own, which are large."""
        return self._reader is not None

    @property
    def missing(self) -> int:
        """Frames that the next maps still need, at least 1."""
        extractor, more = self._extractor, self._extractor.latents_of_step - 1 - len(self._chunk)
        return self.missing_of_latent + more * extractor.temporal_stride

    @property
    def missing_of_latent(self) -> int:
        """Frames that the next latent still needs, at least 1."""
        is_first = not self._kept and self._state is None
        return (1 if is_first else self._extractor.temporal_stride) - len(self._group)

    @property
    def newest_nbytes(self) -> int:
        """Memory that the newest frame added to the state, in bytes."""
        newest = self._group[-1:] or list(self._kept)[-1:]
        state = 0 if self._state is None else self._state.nbytes
        keys = 0 if self._reader is None else self._reader.nbytes
        return sum(array.nbytes for array in newest) + state + keys

    def push(self, frame: Frame) -> list[FeatureMap]:
        """Return the maps of the latents that the next frame completes, uint8 [H, W, 3] RGB.

        There are none for a frame inside its latent's group. The last map is that of this frame.

        Raises:
            BackendError: A graph fails to run. The frames of the latent are dropped.

        """
        complete = self.missing_of_latent == 1
        self._group.append(self._extractor.resize(frame))
        if not complete:
            return []
        group, self._group = self._group, []
        if self._reader is not None:
            return self._read_chunk(group, self._reader)
        windowed = self._extractor.encoder.windowed
        latents = self._encode_window(group) if windowed else self._encode_newest(group)
        return self._extractor.describe(latents)[-1:]

    def _read_chunk(self, group: Sequence[Frame], reader: ChunkReader) -> list[FeatureMap]:
        """Encode the newest frames, and describe the chunk once it is complete."""
        latent, self._state = self._extractor.encoder.encode(group, self._state)
        self._chunk.append(latent)
        if len(self._chunk) < self._extractor.latents_of_step:
            return []
        chunk, self._chunk = self._chunk, []
        return reader.describe(chunk)

    def _encode_window(self, group: Sequence[Frame]) -> list[Resident]:
        """Encode all frames of the window that ends with the group."""
        window = self._window(group)
        self._kept.extend(group)
        return list(self._extractor.encoder.encode_clip(window))

    def _encode_newest(self, group: Sequence[Frame]) -> list[Resident]:
        """Encode the newest frames alone, and keep their latent."""
        latent, self._state = self._extractor.encoder.encode(group, self._state)
        window = self._window([latent])
        self._kept.append(latent)
        return window

    def _window(self, newest: Sequence[Unit]) -> list[Unit]:
        length = 1 + (self._kept.maxlen or 0)
        if not self._kept:
            self._kept.extend([newest[0]] * (length - 1))
        return [*self._kept, *newest][-length:]


def clip_features(extractor: FeatureExtractor, frames: Iterable[Frame]) -> Iterator[FeatureMap]:
    """Yield one feature map for each frame of a clip, from windows that also look ahead.

    If a window describes all its frames, windows overlap, by one latent as in HeFT or as the bundle
    says, and each is encoded from its own beginning. Otherwise windows advance by as many frames as
    they describe, the encoder runs through the clip, and the clip's first frame is repeated before
    it. The last window is moved back so that it ends with the clip. If a clip is shorter than one
    window, its last frame is repeated.

    If the transformer keeps keys and values, a clip has the maps of a stream, in one pass.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB, or T frames [H, W, 3].

    """
    encoder, read = extractor.encoder, 0

    def resize_all() -> Iterator[Frame]:
        nonlocal read
        for frame in frames:
            read += 1
            yield extractor.resize(frame)

    resized = resize_all()
    if extractor.keeps_keys:
        chunks = _describe_chunks(extractor, encoder.encode_clip(resized))
        maps = interpolate_frames(chunks, extractor.temporal_stride)
    elif encoder.windowed or (encoder.cached and extractor.described == extractor.window):
        size = (extractor.window, extractor.described, extractor.overlap)
        maps = describe_in_windows(resized, *size, extractor.describe_frames)
    else:
        latents = encoder.encode_clip(resized)
        size = (extractor.latents, extractor.described_latents, extractor.overlap)
        of_latents = describe_in_windows(latents, *size, extractor.describe)
        maps = interpolate_frames(of_latents, extractor.temporal_stride)
    for number, features in enumerate(maps):
        # The frames of the last latent may go on beyond the clip.
        if number >= read:
            return
        yield features


def _describe_chunks(
    extractor: FeatureExtractor, latents: Iterator[Resident]
) -> Iterator[FeatureMap]:
    """Yield the maps of the latents of a clip; the last one is repeated to fill its chunk."""
    reader, size = ChunkReader(extractor), extractor.latents_of_step
    while chunk := list(islice(latents, size)):
        filled = chunk + [chunk[-1]] * (size - len(chunk))
        yield from islice(reader.describe(filled), len(chunk))


def describe_in_windows(
    units: Iterable[Unit],
    length: int,
    described: int,
    overlap: int,
    describe: Callable[[Sequence[Unit]], Iterable[FeatureMap]],
    before: Sequence[Unit] = (),
) -> Iterator[FeatureMap]:
    """Yield the maps of frames or latents in order.

    Args:
        units: frames or latents.
        length: units in a window.
        described: units at the end of a window that get maps.
        overlap: units that consecutive windows share, if a window describes all its units.
        describe: returns the maps of a window's newest units.
        before: the units before, as many as the last window had, if its maps were yielded already.

    """
    step = described if described < length else max(1, length - overlap)
    window: deque[Unit] = deque([*before[:1]] * (length - len(before)), maxlen=length)
    window.extend(before)
    waiting, needed = 0, step if before else described
    for newest in units:
        if not window:
            window.extend([newest] * (length - described))
        window.append(newest)
        waiting += 1
        if waiting == needed:
            yield from islice(describe(list(window)), described - waiting, None)
            waiting, needed = 0, step
    if waiting:
        missing = length - len(window)
        filled = list(window) + [window[-1]] * missing
        end = described - missing
        yield from islice(describe(filled), end - waiting, end)


def causal_features(
    extractor: FeatureExtractor, frames: Iterable[Frame]
) -> Iterator[FeatureMap | None]:
    """Yield the feature map of each frame, as in a stream; None for a frame that has none."""
    window = SlidingWindow(extractor)
    for frame in frames:
        maps = window.push(frame)
        yield maps[-1] if maps else None
