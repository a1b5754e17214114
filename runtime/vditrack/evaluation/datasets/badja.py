"""Reads BADJA, a benchmark of animal joints in video, in its published format.

Biggs et al., Creatures Great and SMAL: Recovering the Shape and Motion of Animals from Video (ACCV
2018). The folder has ``joint_annotations/`` and the images that the annotations refer to:
``DAVIS/``, which is DAVIS-2017 at full resolution, and ``extra_videos/``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import msgspec
import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.evaluation.datasets.image_files import (
    decode_frame,
    image_paths,
    open_frames,
    read_bytes,
)
from vditrack.evaluation.lazy_images import LazyImages, keep_if_short
from vditrack.input_checks.files import MalformedError, decode_json
from vditrack.synthetic.annotated_clip import AnnotatedClip

_ANNOTATIONS, _EXTRA = "joint_annotations", "extra_videos"
_JOINTS = 37
"""Number of joints of the SMAL model; an annotation has a row for each."""
_ANNOTATED = np.array(
    [8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36]
)
"""Indices of the 20 joints that the benchmark evaluates."""


class _Annotation(msgspec.Struct, frozen=True):
    """The annotation of one frame, as stored in the file."""

    image_path: str
    segmentation_path: str
    joints: list[tuple[float, float]]
    """Positions (row, column) in pixels of the image."""
    visibility: list[bool]


@dataclass(frozen=True)
class _Video:
    """The checked annotations of a video, before its images are read."""

    name: str
    frames: list[Path]
    """Paths of all frames from the first annotated one to the last."""
    annotations: dict[int, _Annotation]
    """Annotations by index into ``frames``."""
    masks: dict[int, Path]
    """Paths of masks by index into ``frames``."""


def is_badja(root: Path) -> bool:
    """Return whether a folder has the layout of BADJA."""
    return (root / _ANNOTATIONS).is_dir()


def open_badja(root: Path) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open BADJA, and return the number of clips and an iterator over them.

    A clip begins with its first annotated frame. A joint is visible if it is annotated as visible
    and lies in the image. Masks are 1 on the animal in annotated frames, and 0 in all others.

    The seven videos of DAVIS are required. An extra video without frames is skipped: the frames of
    two of the four were never published, and published results leave out all four.

    Raises:
        InputError: There are no annotations, they are not in BADJA's format, or frames are
            missing.

    """
    files = sorted((root / _ANNOTATIONS).glob("*.json"))
    videos = [video for path in files if (video := _check_video(root, path)) is not None]
    if not videos:
        raise InputError(
            f"{root / _ANNOTATIONS} contains no annotations of videos whose frames exist."
        )
    return len(videos), (_read_clip(video) for video in videos)


def _check_video(root: Path, path: Path) -> _Video | None:
    """Check an annotation file. Return None for an extra video without frames."""
    annotations = sorted(
        _read_annotations(path), key=lambda one: _frame_number(path, one.image_path)
    )
    folder = _resolve(root, path, annotations[0].image_path).parent
    if not folder.is_dir():
        if annotations[0].image_path.startswith(f"{_EXTRA}/"):
            return None
        raise InputError(
            f"{folder} does not exist. Unpack DAVIS-2017 at full resolution into {root / 'DAVIS'}."
        )
    frames = _frames_between(
        folder, *(_frame_number(path, annotations[n].image_path) for n in (0, -1))
    )
    indices = {frame: t for t, frame in enumerate(frames)}
    by_frame, masks = {}, {}
    for one in annotations:
        image = _resolve(root, path, one.image_path)
        mask = _resolve(root, path, one.segmentation_path)
        if image not in indices or not mask.is_file():
            absent = mask if image in indices else image
            raise InputError(f"{absent} does not exist, but {path.name} annotates it.")
        by_frame[indices[image]], masks[indices[image]] = one, mask
    return _Video(path.stem, frames, by_frame, masks)


def _frames_between(folder: Path, first: int, last: int) -> list[Path]:
    return [
        path
        for path in image_paths(folder)
        if path.stem.isdecimal() and first <= int(path.stem) <= last
    ]


def _read_annotations(path: Path) -> Sequence[_Annotation]:
    try:
        annotations = decode_json(read_bytes(path), list[_Annotation], strict=False)
    except MalformedError as error:
        raise InputError(f"{path} is not an annotation file of BADJA: {error}.") from error
    if not annotations:
        raise InputError(f"{path} annotates no frame. Copy it again.")
    for one in annotations:
        if len(one.joints) != _JOINTS or len(one.visibility) != _JOINTS:
            raise InputError(
                f"{path}, {one.image_path}: {len(one.joints)} joints and {len(one.visibility)} "
                f"visibilities; BADJA has {_JOINTS}. Copy it again."
            )
    return annotations


def _frame_number(path: Path, image_path: str) -> int:
    """Return the number of the frame that an annotation names."""
    stem = PurePosixPath(image_path).stem
    if not (stem.isascii() and stem.isdecimal()):
        raise InputError(f"{path}: {image_path!r} is not named after its frame number.")
    return int(stem)


def _resolve(root: Path, path: Path, name: str) -> Path:
    """Return the path of a file that an annotation names, which must be in the data set."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{path} names {name!r}, which is outside the data set.")
    return root / parts


def _read_clip(video: _Video) -> AnnotatedClip:
    frames = open_frames(video.frames).frames
    height, width = size = frames.shape[1:3]
    points = np.zeros((len(_ANNOTATED), len(frames), 2), np.float32)
    visible = np.zeros(points.shape[:2], np.bool_)
    for t, annotation in video.annotations.items():
        joints = np.array(annotation.joints, np.float32)[_ANNOTATED, ::-1]
        points[:, t] = joints
        in_picture = ((joints >= 0) & (joints < (width, height))).all(axis=1)
        visible[:, t] = np.array(annotation.visibility)[_ANNOTATED] & in_picture

    def read_mask(number: int) -> Mask:
        path = video.masks.get(number)
        return np.zeros(size, np.uint8) if path is None else _read_animal_mask(path, size)

    masks = keep_if_short(LazyImages(read_mask, len(frames), size))
    return AnnotatedClip(video.name, frames, points, visible, masks)


def _read_animal_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Return the mask of the animal, uint8 [H, W] of a size: 1 where the red channel is not 0.

    PIPs (arXiv 2204.04153) and CoTracker (arXiv 2307.07635) read it in this way. With the palette
    of DAVIS these are the objects with odd indices; of two objects, the first.
    """
    red = decode_frame(read_bytes(path), path)[..., 0]
    shown = np.asarray(red != 0, np.uint8)
    height, width = size
    return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
