"""What a user marks: masks and objects in files, each of a frame."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError
from vditrack.io.mask_png import read_mask

_OBJECTS = 255
"""As many as a mask has indices for."""


@dataclass(frozen=True)
class Marks:
    """Masks by frame, and what their objects are called."""

    masks: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """[H, W] of indices."""
    names: dict[int, str] = field(default_factory=dict)
    """By index, of the objects that came in a file each: its name without suffix."""


def read_marks(masks: Sequence[str], objects: Sequence[str]) -> Marks:
    """Read what is to be marked.

    Args:
        masks: texts ``FILE`` (of frame 0) or ``FRAME:FILE``: PNGs of object indices, one a frame.
        objects: texts ``FILE`` or ``FRAME:FILE``: PNGs of one object each, where they are not 0,
            or folders of such, in the order of their names. Objects get the indices that follow the
            highest in ``masks``, or 1; where two overlap, the later one has the pixels.

    Raises:
        InputError: a file cannot be read, marks nothing or has another size than the others of its
            frame, a frame has two masks, there are more than 255 objects, or there is nothing.

    """
    marks = Marks()
    for frame, path in map(_placed, masks):
        if frame in marks.masks:
            raise InputError(
                f"frame {frame} has two masks; the second is {path}. Files of one object each are "
                "given with --object."
            )
        marks.masks[frame] = _marking(path)
    last = max((int(mask.max()) for mask in marks.masks.values()), default=0)
    files = [(frame, file) for text in objects for frame, file in _files(text)]
    if last + len(files) > _OBJECTS:
        raise InputError(
            f"{len(files)} objects after index {last} are more than masks have indices for, "
            f"{_OBJECTS}. Give fewer."
        )
    for index, (frame, path) in enumerate(files, start=last + 1):
        _add(marks, frame, path, index)
    if not marks.masks:
        raise InputError("no object is marked. Give --mask FIRST.png, or --object for each object.")
    return marks


def _add(marks: Marks, frame: int, path: Path, index: int) -> None:
    shown = _marking(path) > 0
    mask = marks.masks.setdefault(frame, np.zeros(shown.shape, np.uint8))
    if mask.shape != shown.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (shown.shape, mask.shape)]
        raise InputError(f"{path} is {sizes[0]}, what was marked before it {sizes[1]}.")
    marks.masks[frame] = np.where(shown, np.uint8(index), mask)
    covered = np.setdiff1d(mask, marks.masks[frame])
    # The background may be covered wholly.
    if covered.any():
        raise InputError(
            f"{path} covers the whole of object {covered.max()} in frame {frame}. Give an object "
            "that lies before others in a later --object."
        )
    marks.names[index] = path.stem


def _marking(path: Path) -> NDArray[np.uint8]:
    mask = read_mask(path)
    if not mask.any():
        raise InputError(f"{path} marks no object: it is 0 everywhere.")
    return mask


def _placed(text: str) -> tuple[int, Path]:
    """Frame and path of ``FRAME:FILE`` or ``FILE``."""
    found = re.fullmatch(r"(?:(\d+):)?(.+)", text, re.DOTALL)
    if found is None:
        raise InputError("an empty name is no mask. Give FILE or FRAME:FILE.")
    return int(found[1] or 0), Path(found[2])


def _files(text: str) -> list[tuple[int, Path]]:
    frame, path = _placed(text)
    if not path.is_dir():
        return [(frame, path)]
    files = sorted(path.glob("*.png"))
    if not files:
        raise InputError(f"{path} holds no .png file.")
    return [(frame, file) for file in files]
