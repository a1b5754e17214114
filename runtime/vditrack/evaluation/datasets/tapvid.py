"""TAP-Vid in its published files: pickles of videos, points and occlusion.

Doersch et al., TAP-Vid: A Benchmark for Tracking Any Point in a Video (arXiv 2211.03726); RoboTAP
(arXiv 2308.15975) comes in the same form.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.evaluation.datasets.image_files import decoded, joined
from vditrack.evaluation.datasets.safe_pickle import load_plain_pickle

Named = list[tuple[str, object]]

_FARTHEST = 1.0
"""Outside the picture, in widths and heights, beyond which a visible point cannot be meant."""


def open_pickle(path: Path) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open one file; it is loaded at once, its clips are checked and decoded when asked for.

    Raises:
        InputError: the file cannot be read, asks for more than plain data, or holds no clips.

    """
    named = _named(path)
    return len(named), _clips(path, named)


def shard_clips(paths: Sequence[Path]) -> Iterator[AnnotatedClip]:
    """Clips of several files, of which one at a time is in memory.

    Raises:
        InputError: as `open_pickle`, or as `AnnotatedClip` cannot be made of what a file holds.

    """
    for path in paths:
        yield from _clips(path, _named(path))


def annotated_tracks(
    where: str, points: object, occluded: object, frames: Frame
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Check tracks as TAP-Vid writes them, and convert them.

    Args:
        where: what an error message begins with.
        points: [N, T, 2] (x, y) as fractions of width and height.
        occluded: bool [N, T]
        frames: of the clip, [T, H, W, 3].

    Returns:
        Points [N, T, 2] in pixels, (0, 0) where they are occluded and no number; visible [N, T].

    Raises:
        InputError: the arrays do not fit together, or a visible point is nowhere near the picture.

    """
    points = _array(where, "points", points, "f", 3)
    occluded = _array(where, "occluded", occluded, "b", 2)
    expected = (*occluded.shape[:1], len(frames))
    if points.shape != (*expected, 2) or occluded.shape != expected:
        raise InputError(
            f"{where}: points {list(points.shape)} and occluded {list(occluded.shape)} of "
            f"{len(frames)} frames; they should be [N, {len(frames)}, 2] and [N, {len(frames)}]."
        )
    visible = ~occluded
    seen = points[visible]
    # Written this way round, the comparison is false of what is no number too.
    if not ((seen >= -_FARTHEST) & (seen <= 1 + _FARTHEST)).all():
        raise InputError(
            f"{where}: visible points that are no fractions of width and height, from 0 to 1."
        )
    known = np.where(visible[..., None] | np.isfinite(points), points, 0)
    size = np.array(frames.shape[2:0:-1], np.float32)
    return np.asarray(known * size, np.float32), np.asarray(visible, np.bool_)


def _named(path: Path) -> Named:
    """What a file holds, each clip with its name and not yet checked."""
    content = load_plain_pickle(path)
    named: Named = []
    if isinstance(content, Mapping):
        named = [(str(name), clip) for name, clip in content.items()]
    elif isinstance(content, list | tuple):
        named = [(f"{path.stem}-{n:03d}", clip) for n, clip in enumerate(content)]
    if not named:
        raise InputError(f"{path} holds no clips: TAP-Vid's files are a dict or list of them.")
    return named


def _clips(path: Path, named: Named) -> Iterator[AnnotatedClip]:
    for name, content in named:
        yield _clip(f"{path}, clip {name}", name, content)


def _clip(where: str, name: str, content: object) -> AnnotatedClip:
    keys = ("video", "points", "occluded")
    if not isinstance(content, Mapping) or not all(key in content for key in keys):
        raise InputError(f"{where} is no dict of {', '.join(keys)}.")
    frames = _frames(where, content["video"])
    points, visible = annotated_tracks(where, content["points"], content["occluded"], frames)
    return AnnotatedClip(name, frames, points, visible)


def _frames(where: str, video: object) -> Frame:
    """Frames of a video, an array [T, H, W, 3] or T encoded images."""
    if isinstance(video, np.ndarray) and video.dtype.kind != "S":
        frames = _array(where, "video", video, "u", 4)
        if frames.dtype != np.uint8 or frames.shape[3] != 3 or not frames.size:
            raise InputError(
                f"{where}: video is {frames.dtype} {list(frames.shape)}, not uint8 [T, H, W, 3]."
            )
        return np.ascontiguousarray(frames)
    if not isinstance(video, list | tuple | np.ndarray) or not len(video):
        raise InputError(f"{where}: video is neither an array nor a list of images.")
    images = [(_image(where, t, image), f"{where}, frame {t}") for t, image in enumerate(video)]
    return joined(((decoded(image, place), place) for image, place in images), len(images))


def _image(where: str, t: int, image: object) -> bytes:
    # A string of Python 2 comes as text, one character a byte.
    image = image.encode("latin-1", "replace") if isinstance(image, str) else image
    if not isinstance(image, bytes):
        raise InputError(f"{where}, frame {t} is no encoded image.")
    return image


def _array(where: str, name: str, value: object, kind: str, dimensions: int) -> NDArray[Any]:
    kinds = {"f": "floating-point numbers", "b": "booleans", "u": "bytes"}
    if not isinstance(value, np.ndarray) or value.dtype.kind != kind or value.ndim != dimensions:
        found = (
            f"{value.dtype} {list(value.shape)}"
            if isinstance(value, np.ndarray)
            else type(value).__name__
        )
        raise InputError(
            f"{where}: {name} is {found}, not an array of {kinds[kind]} in {dimensions} dimensions."
        )
    return value
