"""Windows of frames over clips and streams."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from vditrack.arrays import Frame
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, _frame_by_frame
from vditrack.features.latent_encoder import Caches
from vditrack.inference.session import Array


class SlidingWindow:
    """Causal features: each frame's map is that of the newest latent of the window it ends.

    Before the window is full, its first latent stands in for the ones before it. Where latents
    share frames, the newest frame stands in for those its group still lacks, so that every frame
    has a map; the latent of the whole group is kept.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        length = extractor.window if extractor.encoder.windowed else extractor.latents
        self._kept: deque[Array] = deque(maxlen=length - 1)
        self._group: list[Frame] = []
        self._caches: Caches | None = None

    def push(self, frame: Frame) -> FeatureMap:
        resized = self._extractor.resize(frame)
        windowed = self._extractor.encoder.windowed
        latents = self._anew(resized) if windowed else self._going_on(resized)
        return self._extractor.describe(latents)[-1]

    def _anew(self, frame: Frame) -> list[Array]:
        """Encode all frames of the window that the frame ends."""
        window = self._window(frame)
        self._kept.append(frame)
        return list(self._extractor.encoder.from_beginning(window))

    def _going_on(self, frame: Frame) -> list[Array]:
        """Encode the newest frames alone, and keep their latent once their group is whole."""
        encoder = self._extractor.encoder
        group = [*self._group, frame]
        latent, caches = encoder.encode(group, self._caches)
        window = self._window(latent)
        if self._caches is None or len(group) == encoder.frames:
            self._kept.append(latent)
            self._group, self._caches = [], caches
        else:
            self._group = group
        return window

    def _window(self, newest: Array) -> list[Array]:
        if not self._kept:
            self._kept.extend([newest] * (self._kept.maxlen or 0))
        return [*self._kept, newest]


def clip_features(
    extractor: FeatureExtractor, frames: Frame | Sequence[Frame]
) -> Iterator[FeatureMap]:
    """One feature map a frame of a clip: no frame is left out.

    Where a window describes all its frames, windows overlap, by one as in HeFT or as the bundle
    says, and each is encoded from its own beginning. Else they follow each other by as many frames
    as they describe, the encoder goes on through the clip, and the clip's first frame stands in for
    those before it. The last window is moved back so that it ends with the clip, and where a clip
    is shorter than one window, its last frame stands in for those after it.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB, or T frames [H, W, 3].

    """
    encoder = extractor.encoder
    resized = (extractor.resize(frame) for frame in frames)
    if encoder.windowed or (encoder.cached and extractor.described == extractor.window):
        size = (extractor.window, extractor.described, extractor.overlap)
        maps = _in_windows(resized, *size, extractor.describe_frames)
    else:
        latents = encoder.from_beginning(resized)
        size = (extractor.latents, extractor.described_latents, extractor.overlap)
        of_latents = _in_windows(latents, *size, extractor.describe)
        maps = _frame_by_frame(of_latents, extractor.temporal_stride)
    # The frames of the last latent may go on beyond the clip.
    return islice(maps, len(frames))


def _in_windows(
    units: Iterable[Array],
    length: int,
    described: int,
    overlap: int,
    describe: Callable[[Sequence[Array]], Iterable[FeatureMap]],
) -> Iterator[FeatureMap]:
    """Maps of frames or latents in order, where ``describe`` gives a window's newest ones."""
    window: deque[Array] = deque(maxlen=length)
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
    """One feature map a frame, each from the window that ends with it, as a stream has them."""
    window = SlidingWindow(extractor)
    return (window.push(frame) for frame in frames)
