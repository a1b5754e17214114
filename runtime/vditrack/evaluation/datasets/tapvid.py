"""Reads TAP-Vid in its published format: pickles of videos, points and occlusion.

Doersch et al., TAP-Vid: A Benchmark for Tracking Any Point in a Video (arXiv 2211.03726); RoboTAP
(arXiv 2308.15975) has the same format.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError
from vditrack.evaluation.datasets.image_files import EncodedImage, Footage, open_footage
from vditrack.evaluation.datasets.safe_pickle import load_plain_pickle
from vditrack.synthetic.annotated_clip import AnnotatedClip

Named = list[tuple[str, object]]

_FARTHEST = 1.0
"""Largest distance of a visible point outside the image, in widths and heights."""


def open_pickle(path: Path, side: int | None) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open one file, and return the number of clips and an iterator over them.

    The file is loaded at once. Its clips are checked and decoded when they are requested.

    Args:
        path: The file.
        side: Side of squares that encoded frames are resized to, or None.

    Raises:
        InputError: The file cannot be read, contains more than plain data, or has no clips.

    """
    named = _load_clips(path)
    return len(named), _read_clips(path, named, side)


def shard_clips(paths: Sequence[Path], side: int | None) -> Iterator[AnnotatedClip]:
    """Yield the clips of several files, of which one at a time is in memory; see `open_pickle`.

    Raises:
        InputError: As `open_pickle`, or a clip is malformed.

    """
    for path in paths:
        yield from _read_clips(path, _load_clips(path), side)


def annotated_tracks(
    where: str, points: object, occluded: object, footage: Footage
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Check tracks in TAP-Vid's format and convert them to pixels.

    Args:
        where: Source of the tracks, with which error messages begin.
        points: Positions (x, y) as fractions of width and height, float [N, T, 2].
        occluded: Occlusion, bool [N, T].
        footage: Frames of the clip.

    Returns:
        Points in pixels of the frames, float32 [N, T, 2], which are (0, 0) where a point is
        occluded and not finite; and visibility, bool [N, T].

    Raises:
        InputError: The arrays do not fit together, or a visible point is far outside the image.

    """
    frames = footage.frames
    points = _check_array(where, "points", points, "f", 3)
    occluded = _check_array(where, "occluded", occluded, "b", 2)
    expected = (*occluded.shape[:1], len(frames))
    if points.shape != (*expected, 2) or occluded.shape != expected:
        raise InputError(
            f"{where}: points {list(points.shape)} and occluded {list(occluded.shape)} of "
            f"{len(frames)} frames; give [N, {len(frames)}, 2] and [N, {len(frames)}]."
        )
    visible = ~occluded
    seen = points[visible]
    # In this form the comparison is false for NaN too.
    if not ((seen >= -_FARTHEST) & (seen <= 1 + _FARTHEST)).all():
        raise InputError(
            f"{where}: visible points are not fractions of width and height, from 0 to 1."
        )
    known = np.where(visible[..., None] | np.isfinite(points), points, 0)
    size = np.array(footage.size[::-1], np.float32)
    # In this order the points are those of a clip that is resized as a whole.
    scale = np.array(frames.shape[2:0:-1], np.float32) / size
    in_files = np.asarray(known * size, np.float32)
    return in_files * scale, np.asarray(visible, np.bool_)


def _load_clips(path: Path) -> Named:
    """Load the clips of a file with their names, without checking them."""
    content = load_plain_pickle(path)
    named: Named = []
    if isinstance(content, Mapping):
        named = [(str(name), clip) for name, clip in content.items()]
    elif isinstance(content, list | tuple):
        named = [(f"{path.stem}-{n:03d}", clip) for n, clip in enumerate(content)]
    if not named:
        raise InputError(f"{path} contains no clips: a TAP-Vid file is a dict or list of clips.")
    return named


def _read_clips(path: Path, named: Named, side: int | None) -> Iterator[AnnotatedClip]:
    for name, content in named:
        yield _read_clip(f"{path}, clip {name}", name, content, side)


def _read_clip(where: str, name: str, content: object, side: int | None) -> AnnotatedClip:
    keys = ("video", "points", "occluded")
    if not isinstance(content, Mapping) or not all(key in content for key in keys):
        raise InputError(f"{where} is not a dict of {', '.join(keys)}.")
    footage = _read_frames(where, content["video"], side)
    points, visible = annotated_tracks(where, content["points"], content["occluded"], footage)
    return AnnotatedClip(name, footage.frames, points, visible)


def _read_frames(where: str, video: object, side: int | None) -> Footage:
    """Return the frames of a video, which is an array [T, H, W, 3] or T encoded images."""
    if isinstance(video, np.ndarray) and video.dtype.kind != "S":
        frames = _check_array(where, "video", video, "u", 4)
        if frames.dtype != np.uint8 or frames.shape[3] != 3 or not frames.size:
            raise InputError(
                f"{where}: video is {frames.dtype} {list(frames.shape)}, not uint8 [T, H, W, 3]."
            )
        height, width = frames.shape[1:3]
        return Footage(np.ascontiguousarray(frames), (height, width))
    if not isinstance(video, list | tuple | np.ndarray) or not len(video):
        raise InputError(f"{where}: video is neither an array nor a list of images.")
    sources = [f"{where}, frame {t}" for t in range(len(video))]
    images = [_encoded_image(*pair) for pair in zip(sources, video, strict=True)]
    return open_footage(images, side)


def _encoded_image(source: str, image: object) -> EncodedImage:
    # A string from Python 2 is read as text with one character a byte.
    image = image.encode("latin-1", "replace") if isinstance(image, str) else image
    if not isinstance(image, bytes):
        raise InputError(f"{source} is not an encoded image. Copy the data set again.")
    return EncodedImage(lambda: image, source)


def _check_array(where: str, name: str, value: object, kind: str, dimensions: int) -> NDArray[Any]:
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
