"""Objects that the options ``--mask`` and ``--object`` mark."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.io.marked_masks import Labels, read_marked_mask

_MAX_OBJECTS = 255
"""Indices that a mask of 8 bits has, without the background."""


@dataclass(frozen=True)
class MarkedObjects:
    """Marked masks by frame, and names of their objects."""

    masks: dict[int, Mask] = field(default_factory=dict)
    """Masks uint8 [H, W] of object indices, by frame number."""
    names: dict[int, str] = field(default_factory=dict)
    """Names by index: the file name without suffix of objects in files of their own, and colours
    or levels as in #ff0000 that are not indices."""
    remarks: list[str] = field(default_factory=list)
    """What was done to read the masks."""
    files: list[Path] = field(default_factory=list)
    """Files that the masks were read from."""


def read_marked_objects(masks: Sequence[str], objects: Sequence[str]) -> MarkedObjects:
    """Read the masks and objects that a user marks.

    Args:
        masks: Texts ``FILE`` (for frame 0) or ``FRAME:FILE``: PNGs of object indices, one a frame.
        objects: Texts ``FILE`` or ``FRAME:FILE``: PNGs that mark one object each where they are not
            0, or folders of such PNGs, read in the order of their names. Indices follow the highest
            one in ``masks``, or start at 1. Where two objects overlap, the later one is kept.

    Raises:
        InputError: A file cannot be read, marks nothing or has another size than the others of its
            frame, a frame has two masks, there are more than 255 objects, or no object is marked.

    """
    marked, labels = MarkedObjects(), Labels()
    for frame, path in map(_split_frame, masks):
        marked.files.append(path)
        if frame in marked.masks:
            raise InputError(
                f"frame {frame} has two masks; the second is {path}. Give files of one object each "
                "with --object."
            )
        marked.masks[frame] = _read_nonempty(path, marked, labels)
    last = max((int(mask.max()) for mask in marked.masks.values()), default=0)
    files = [(frame, file) for text in objects for frame, file in _list_files(text)]
    if last + len(files) > _MAX_OBJECTS:
        raise InputError(
            f"{len(files)} objects after index {last} are too many: a mask has {_MAX_OBJECTS} "
            "indices. Give fewer."
        )
    for index, (frame, path) in enumerate(files, start=last + 1):
        marked.files.append(path)
        _add_object(marked, frame, path, index)
    if not marked.masks:
        raise InputError("no object is marked. Give --mask FIRST.png, or --object for each object.")
    return marked


def _add_object(marked: MarkedObjects, frame: int, path: Path, index: int) -> None:
    shown = _read_nonempty(path, marked, None) > 0
    mask = marked.masks.setdefault(frame, np.zeros(shown.shape, np.uint8))
    if mask.shape != shown.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (shown.shape, mask.shape)]
        raise InputError(
            f"{path} is {sizes[0]}, the files before it for frame {frame} {sizes[1]}. Give files "
            "of one size."
        )
    marked.masks[frame] = np.where(shown, np.uint8(index), mask)
    covered = np.setdiff1d(mask, marked.masks[frame])
    # The background may be covered entirely.
    if covered.any():
        raise InputError(
            f"{path} covers the whole of object {covered.max()} in frame {frame}. Give an object "
            "in front of others in a later --object."
        )
    marked.names[index] = path.stem


def _read_nonempty(path: Path, marked: MarkedObjects, labels: Labels | None) -> Mask:
    """Read a mask, and note its remarks and, with labels, the names of its objects."""
    found = read_marked_mask(path, {} if labels is None else labels)
    if not found.mask.any():
        raise InputError(f"{path} marks no object: it is 0 everywhere.")
    marked.remarks.extend(found.remarks)
    if labels is not None:
        marked.names.update({index: label for label, index in found.labels.items()})
    return found.mask


def _split_frame(text: str) -> tuple[int, Path]:
    """Return the frame number and the path of ``FRAME:FILE`` or ``FILE``."""
    found = re.fullmatch(r"(?:(\d+):)?(.+)", text, re.DOTALL)
    if found is None:
        raise InputError("an empty name is no mask. Give FILE or FRAME:FILE.")
    return int(found[1] or 0), Path(found[2])


def _list_files(text: str) -> list[tuple[int, Path]]:
    frame, path = _split_frame(text)
    if not path.is_dir():
        return [(frame, path)]
    files = sorted(path.glob("*.png"))
    if not files:
        raise InputError(f"{path} holds no .png file.")
    return [(frame, file) for file in files]
