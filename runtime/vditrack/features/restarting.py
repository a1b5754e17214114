"""Feature maps of a clip from any of its frames on, equal to those of a pass from the start."""

from collections.abc import Iterator
from itertools import islice

from vditrack.arrays import Frame
from vditrack.features.clip_frames import ClipFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import causal_features, clip_features, describe_in_windows


def keeps_state(extractor: FeatureExtractor, *, causal: bool) -> bool:
    """Return whether the maps of a frame depend on all frames before it, and not on a window."""
    encoder = extractor.encoder
    windows = not causal and extractor.described == extractor.window
    return extractor.keeps_keys or (encoder.cached and not windows)


def first_frame_read(extractor: FeatureExtractor, first: int, *, causal: bool) -> int:
    """Return the number of the first frame that the maps from frame ``first`` on are read from."""
    if keeps_state(extractor, causal=causal):
        return 0
    if causal:
        stride = extractor.temporal_stride
        return max(0, (first - extractor.window) // stride * stride)
    return max(0, _described_before(extractor, first) - extractor.window)


def features_from(
    extractor: FeatureExtractor, frames: Iterator[Frame], count: int, first: int, *, causal: bool
) -> Iterator[FeatureMap | None]:
    """Yield the maps of a clip's frames from number ``first`` on; None for a frame without one.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [H, W, 3] RGB, from number `first_frame_read` on.
        count: frames of the clip.
        first: number of the first frame.
        causal: whether maps are those of a stream, or of windows that also look ahead.

    """
    begin = first_frame_read(extractor, first, causal=causal)
    if causal:
        yield from islice(causal_features(extractor, frames), first - begin, count - begin)
    elif keeps_state(extractor, causal=causal) or not first:
        yield from islice(clip_features(extractor, frames), first, count)
    else:
        yield from _window_features(extractor, frames, count, first)


def read_clip_features(
    extractor: FeatureExtractor, clip: ClipFrames, first: int
) -> Iterator[FeatureMap]:
    """Yield the maps of a clip's frames from number ``first`` on, from windows that look ahead."""
    begin = first_frame_read(extractor, first, causal=False)
    frames = (timed.frame for timed in clip.read(begin))
    for features in features_from(extractor, frames, len(clip), first, causal=False):
        # Windows that look ahead describe every frame.
        if features is not None:
            yield features


def _window_features(
    extractor: FeatureExtractor, frames: Iterator[Frame], count: int, first: int
) -> Iterator[FeatureMap]:
    """Yield the maps from number ``first`` on, from the windows of a pass from the start."""
    described = _described_before(extractor, first)
    resized = (extractor.resize(frame) for frame in frames)
    before = list(islice(resized, min(described, extractor.window)))
    if extractor.encoder.windowed or extractor.encoder.cached:
        size = (extractor.window, extractor.described, extractor.overlap)
        maps = describe_in_windows(resized, *size, extractor.describe_frames, before)
    else:
        encode, size = extractor.encoder.encode_clip, _window_size(extractor)
        latents = list(encode(iter(before)))
        maps = describe_in_windows(encode(resized), *size, extractor.describe, latents)
    yield from islice(maps, first - described, count - described)


def _window_size(extractor: FeatureExtractor) -> tuple[int, int, int]:
    """Return the length, the described units and the overlap of windows."""
    if extractor.encoder.windowed or extractor.encoder.cached:
        return extractor.window, extractor.described, extractor.overlap
    # Without a state each frame has its own latent.
    return extractor.latents, extractor.described_latents, extractor.overlap


def _described_before(extractor: FeatureExtractor, first: int) -> int:
    """Return how many frames the windows before the one of frame ``first`` describe."""
    length, described, overlap = _window_size(extractor)
    if first < described:
        return 0
    step = described if described < length else max(1, length - overlap)
    return described + (first - described) // step * step
