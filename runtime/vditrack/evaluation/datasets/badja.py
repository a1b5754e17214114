"""BADJA, the benchmark of joints of animals in video, as its authors publish it.

Biggs et al., Creatures Great and SMAL: Recovering the Shape and Motion of Animals from Video (ACCV
2018). A folder holds ``joint_annotations/``, and beside it what the annotations name: ``DAVIS/``,
DAVIS-2017 at full resolution, and ``extra_videos/``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.evaluation.datasets.image_files import decoded, image_paths, read_bytes, read_frames

_ANNOTATIONS, _EXTRA = "joint_annotations", "extra_videos"
_JOINTS = 37
"""Joints of the SMAL model of which an annotation has a row each."""
_ANNOTATED = np.array(
    [8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36]
)
"""The 20 of them that the benchmark counts."""


class _Annotation(msgspec.Struct, frozen=True):
    """One frame of a video, as the file has it."""

    image_path: str
    segmentation_path: str
    joints: list[tuple[float, float]]
    """(row, column) in pixels of the image."""
    visibility: list[bool]


@dataclass(frozen=True)
class _Video:
    """What is known of a video before its images are read."""

    name: str
    frames: list[Path]
    """All from the first annotated one to the last."""
    annotations: dict[int, _Annotation]
    """By index of the frame."""
    masks: dict[int, Path]
    """By index of the frame."""


def is_badja(root: Path) -> bool:
    """Whether a folder has the layout of BADJA."""
    return (root / _ANNOTATIONS).is_dir()


def open_badja(root: Path) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open BADJA; a clip's first frame is the first annotated one.

    The frames of two of the four extra videos were never published, and published results leave
    out all four; so an extra video whose frames are not there is left out, and one whose frames
    are there is not. The other seven are needed.

    A joint is visible where it is annotated so and lies in the picture. Masks are 1 on the animal
    in annotated frames and 0 in all others.

    Raises:
        InputError: there are no annotations, they are not of BADJA's form, or frames are missing.

    """
    files = sorted((root / _ANNOTATIONS).glob("*.json"))
    videos = [video for path in files if (video := _video(root, path)) is not None]
    if not videos:
        raise InputError(f"{root / _ANNOTATIONS} holds no annotations of videos that are there.")
    return len(videos), (_clip(video) for video in videos)


def _video(root: Path, path: Path) -> _Video | None:
    """Check an annotation file; None is an extra video whose frames are not there."""
    annotations = sorted(_annotations(path), key=lambda one: _number(path, one.image_path))
    folder = _inside(root, path, annotations[0].image_path).parent
    if not folder.is_dir():
        if annotations[0].image_path.startswith(f"{_EXTRA}/"):
            return None
        raise InputError(
            f"{folder} is not there. Unpack DAVIS-2017 at full resolution into {root / 'DAVIS'}."
        )
    frames = _frames_between(folder, *(_number(path, annotations[n].image_path) for n in (0, -1)))
    indices = {frame: t for t, frame in enumerate(frames)}
    placed, masks = {}, {}
    for one in annotations:
        image = _inside(root, path, one.image_path)
        mask = _inside(root, path, one.segmentation_path)
        if image not in indices or not mask.is_file():
            absent = mask if image in indices else image
            raise InputError(f"{absent} is not there, but {path.name} annotates it.")
        placed[indices[image]], masks[indices[image]] = one, mask
    return _Video(path.stem, frames, placed, masks)


def _frames_between(folder: Path, first: int, last: int) -> list[Path]:
    return [
        path
        for path in image_paths(folder)
        if path.stem.isdecimal() and first <= int(path.stem) <= last
    ]


def _annotations(path: Path) -> Sequence[_Annotation]:
    try:
        annotations = msgspec.json.decode(read_bytes(path), type=list[_Annotation], strict=False)
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no annotation file of BADJA: {error}.") from error
    if not annotations:
        raise InputError(f"{path} annotates no frame.")
    for one in annotations:
        if len(one.joints) != _JOINTS or len(one.visibility) != _JOINTS:
            raise InputError(
                f"{path}, {one.image_path}: {len(one.joints)} joints and {len(one.visibility)} "
                f"visibilities; BADJA has {_JOINTS}."
            )
    return annotations


def _number(path: Path, image_path: str) -> int:
    stem = PurePosixPath(image_path).stem
    if not (stem.isascii() and stem.isdecimal()):
        raise InputError(f"{path}: {image_path!r} is not named by the number of its frame.")
    return int(stem)


def _inside(root: Path, path: Path, name: str) -> Path:
    """Path of a file that an annotation names, which must be one of the data set."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{path} names {name!r}, which is outside the data set.")
    return root / parts


def _clip(video: _Video) -> AnnotatedClip:
    frames = read_frames(video.frames)
    height, width = frames.shape[1:3]
    points = np.zeros((len(_ANNOTATED), len(frames), 2), np.float32)
    visible = np.zeros(points.shape[:2], np.bool_)
    masks = np.zeros(frames.shape[:3], np.uint8)
    for t, annotation in video.annotations.items():
        joints = np.array(annotation.joints, np.float32)[_ANNOTATED, ::-1]
        points[:, t] = joints
        in_picture = ((joints >= 0) & (joints < (width, height))).all(axis=1)
        visible[:, t] = np.array(annotation.visibility)[_ANNOTATED] & in_picture
        masks[t] = _animal(video.masks[t], frames[t])
    return AnnotatedClip(video.name, frames, points, visible, masks)


def _animal(path: Path, frame: Frame) -> NDArray[np.uint8]:
    """Mask of the animal: where the red channel is not 0.

    PIPs (arXiv 2204.04153) and CoTracker (arXiv 2307.07635) read it so. With the palette
    of DAVIS those are the objects of odd numbers; of two objects, the first.
    """
    red = decoded(read_bytes(path), path)[..., 0]
    shown = np.asarray(red != 0, np.uint8)
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
