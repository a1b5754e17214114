"""Reads the frames and masks of a clip from image files, one file a frame."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vditrack.arrays import Frame, FrameClip, MaskClip
from vditrack.errors import InputError
from vditrack.input_checks.files import read_file
from vditrack.io.mask_png import read_mask
from vditrack.ros_messages.image_codec import decode_rgb
from vditrack.synthetic.annotated_clip import resize_frame

FRAME_TYPES = (".jpg", ".jpeg", ".png")
"""Suffixes of files that are taken for frames."""
_MAX_SIZE = 256 << 20
"""Largest size of a file, in bytes."""
_VOID = 255
"""Label of void pixels in DAVIS-2017."""


def image_paths(folder: Path, types: Sequence[str] = FRAME_TYPES) -> list[Path]:
    """Return the image files in a folder, in the order of their numbers.

    Args:
        folder: Folder of one clip.
        types: Suffixes in lower case, with the dot.

    Raises:
        InputError: ``folder`` is not a folder, or has no image in it.

    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Unpack the data set again.")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in types]
    if not paths:
        raise InputError(f"{folder} contains no {' or '.join(types)} file.")
    # Numbers without leading zeros, as FFmpeg may write them, are sorted by value.
    return sorted(paths, key=lambda path: (len(path.stem), path.name))


class Footage(NamedTuple):
    """The frames of a clip."""

    frames: FrameClip
    """uint8 [T, H, W, 3] RGB."""
    size: tuple[int, int]
    """(height, width) of the frames in the files; ``frames`` may be smaller."""


def read_frames(paths: Sequence[Path]) -> FrameClip:
    """Read frames, uint8 [T, H, W, 3] RGB.

    Raises:
        InputError: A file cannot be read, is not an image, or differs in size from the first.

    """
    return read_footage(paths, None).frames


def read_footage(paths: Sequence[Path], side: int | None) -> Footage:
    """Read frames, and resize each when it is decoded; see `stack_frames`.

    Raises:
        InputError: As `read_frames`.

    """
    images = ((decode_frame(read_bytes(path), path), path) for path in paths)
    return stack_frames(images, len(paths), side)


def stack_frames(images: Iterable[tuple[Frame, object]], count: int, side: int | None) -> Footage:
    """Stack frames of one size, resized to squares one by one: the large ones are not in memory.

    Args:
        images: Each frame with its source, which error messages name.
        count: Number of frames.
        side: Side of the squares, in pixels; None to leave frames as they are.

    Raises:
        InputError: A frame differs in size from the first.

    """
    coming = _check_sizes(images)
    first = next(coming)
    frames = chain([first], coming)
    resized = frames if side is None else (resize_frame(frame, side, side) for frame in frames)
    height, width = first.shape[:2]
    return Footage(_stack(resized, count), (height, width))


def stack_images(images: Iterable[tuple[Frame, object]], count: int) -> Frame:
    """Stack images of one size into one array, uint8 [T, ...].

    Args:
        images: Each image with its source, which error messages name.
        count: Number of images.

    Raises:
        InputError: An image differs in size from the first.

    """
    return _stack(_check_sizes(images), count)


def _check_sizes(images: Iterable[tuple[Frame, object]]) -> Iterator[Frame]:
    first: tuple[int, ...] | None = None
    for image, source in images:
        first = first or image.shape
        if image.shape != first:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (image.shape, first)]
            raise InputError(f"{source} is {sizes[0]}, but the first of its clip is {sizes[1]}.")
        yield image


def _stack(images: Iterator[Frame], count: int) -> Frame:
    first = next(images)
    # np.stack would need the memory of the clip twice.
    stacked = np.empty((count, *first.shape), np.uint8)
    stacked[0] = first
    for t, image in enumerate(images, start=1):
        stacked[t] = image
    return stacked


def decode_frame(image: bytes, source: object) -> Frame:
    """Decode a JPEG or PNG to uint8 [H, W, 3] RGB.

    Args:
        image: Content of the file.
        source: Where the image comes from, which the error message names.

    Raises:
        InputError: The image is damaged, or neither JPEG nor PNG.

    """
    frame = decode_rgb(image)
    if frame is None:
        raise InputError(f"{source} is not a JPEG or PNG image, or is damaged. Copy it again.")
    return frame


def read_masks(paths: Sequence[Path], frames: Frame) -> MaskClip:
    """Read the object index at each pixel of a clip, uint8 [T, H, W], 0 for the background.

    Void pixels, labelled 255, become background, as in the evaluation of DAVIS-2017.

    Args:
        paths: A palette or grey PNG for each frame.
        frames: Frames of the clip, uint8 [T, H, W, 3].

    Raises:
        InputError: A file cannot be read, is not a palette or grey PNG, or differs in size from
            the frames, or the number of files differs.

    """
    masks = stack_images(((read_mask(path, white=1), path) for path in paths), len(paths))
    if masks.shape != frames.shape[:3]:
        sizes = [f"{len(a)} of {a.shape[2]} x {a.shape[1]}" for a in (masks, frames)]
        raise InputError(f"{paths[0].parent}: masks {sizes[0]} for frames {sizes[1]}.")
    masks[masks == _VOID] = 0
    return masks


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: The file does not exist, or cannot be read.

    """
    try:
        return read_file(path, _MAX_SIZE)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
