"""Reads videos from folders of images: DAVIS-2017, and a simple layout for own data."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import ImageSequence
from vditrack.errors import InputError
from vditrack.evaluation.datasets.image_files import (
    Footage,
    image_paths,
    open_frames,
    open_masks,
)
from vditrack.evaluation.datasets.tapvid import annotated_tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip

FRAMES, MASKS, TRACKS = "frames", "masks", "tracks.npz"
"""Entries of a video's folder in the simple layout."""

_IMAGES, _ANNOTATIONS = "JPEGImages/480p", "Annotations/480p"
_VALIDATION = "ImageSets/2017/val.txt"
_DAMAGE = (AttributeError, EOFError, OSError, TypeError, ValueError, BadZipFile, zlib.error)
"""Exceptions that NumPy raises for a file that is not an archive, or is damaged."""


def is_davis(root: Path) -> bool:
    """Return whether a folder has the layout of DAVIS-2017."""
    return (root / _IMAGES).is_dir() or (root / _ANNOTATIONS).is_dir()


def open_davis(root: Path) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open DAVIS-2017 (arXiv 1704.00675) at 480p, and return the number of clips and the clips.

    The clips are those of the validation set, or all if the list of the validation set is missing.

    Raises:
        InputError: Frames or masks of a sequence are missing, or the list is empty.

    """
    listed = root / _VALIDATION
    if listed.is_file():
        names = listed.read_text(encoding="utf-8", errors="replace").split()
    else:
        names = [folder.name for folder in _subfolders(root / _IMAGES)]
    if not names:
        raise InputError(
            f"{listed} lists no sequence. Unpack the data set again."
            if listed.is_file()
            else _no_data_message(root)
        )
    paths = [_davis_paths(root, name) for name in names]
    return len(names), (_read_davis_clip(*found) for found in zip(names, paths, strict=True))


def open_folders(
    root: Path, needed: Sequence[str], side: int | None = None
) -> tuple[int, Iterator[AnnotatedClip]]:
    """Open a folder with one subfolder for each video, sorted by name.

    A subfolder has ``frames/`` with a JPEG or PNG for each frame. It may have ``tracks.npz`` with
    ``points`` [N, T, 2] as fractions of width and height and ``occluded`` bool [N, T], and
    ``masks/`` with a PNG of object indices for each frame, named like the frame.

    Args:
        root: The folder.
        needed: Which of `TRACKS` and `MASKS` the protocol needs.
        side: Side of squares that frames are resized to, or None; not with masks.

    Returns:
        The number of clips and an iterator over them.

    Raises:
        InputError: There is no video, or a video lacks what is needed.

    """
    folders = _subfolders(root)
    if not any((folder / FRAMES).is_dir() for folder in folders):
        raise InputError(_no_data_message(root))
    for folder in folders:
        for name in (FRAMES, *needed):
            if not (folder / name).exists():
                raise InputError(f"{folder} has no {name}, which the protocol needs.")
    return len(folders), (_read_folder_clip(folder, needed, side) for folder in folders)


def _davis_paths(root: Path, name: str) -> tuple[list[Path], list[Path]]:
    frames = image_paths(root / _IMAGES / name, (".jpg",))
    return frames, _match_masks(frames, root / _ANNOTATIONS / name)


def _read_davis_clip(name: str, paths: tuple[list[Path], list[Path]]) -> AnnotatedClip:
    frames = open_frames(paths[0]).frames
    masks = open_masks(paths[1], frames)
    if not masks[0].any():
        raise InputError(
            f"{paths[1][0]} contains no object. Objects are 1, 2 and so on; 255 is void in "
            "DAVIS-2017."
        )
    return AnnotatedClip(name, frames, *_empty_tracks(frames), masks)


def _read_folder_clip(folder: Path, needed: Sequence[str], side: int | None) -> AnnotatedClip:
    paths = image_paths(folder / FRAMES)
    footage = open_frames(paths, side)
    frames = footage.frames
    tracks, masks = _empty_tracks(frames), None
    if TRACKS in needed:
        tracks = _read_tracks(folder / TRACKS, footage)
    if MASKS in needed:
        masks = open_masks(_match_masks(paths, folder / MASKS), frames)
    return AnnotatedClip(folder.name, frames, *tracks, masks)


def _match_masks(frames: Sequence[Path], folder: Path) -> list[Path]:
    """Return the masks in a folder, which must have the names of the frames."""
    masks = image_paths(folder, (".png",))
    unmatched = {path.stem for path in masks} ^ {path.stem for path in frames}
    if unmatched:
        raise InputError(
            f"{folder} and {frames[0].parent} differ: {min(unmatched)} is in only one of them. "
            "Each frame needs a mask."
        )
    return masks


def _read_tracks(path: Path, footage: Footage) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read points [N, T, 2] in pixels and their visibility [N, T]."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            points, occluded = arrays["points"], arrays["occluded"]
    except KeyError as error:
        raise InputError(f"{path} needs arrays points and occluded: {error.args[0]}.") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is not a NumPy archive of arrays, or is damaged.") from error
    return annotated_tracks(str(path), points, occluded, footage)


def _empty_tracks(
    frames: ImageSequence,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return np.zeros((0, len(frames), 2), np.float32), np.zeros((0, len(frames)), np.bool_)


def _subfolders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _no_data_message(root: Path) -> str:
    return (
        f"{root} contains no known data. It should be a TAP-Vid .pkl or a folder of them, "
        "DAVIS-2017 (with JPEGImages/480p), BADJA (with joint_annotations), or a folder with one "
        "subfolder for each video (with frames)."
    )
