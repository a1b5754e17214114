"""Reads the frames and masks of a clip from image files, one file a frame."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vditrack.arrays import Frame, Image, ImageSequence, Mask
from vditrack.errors import InputError
from vditrack.evaluation.lazy_images import LazyImages, keep_if_short
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

    frames: ImageSequence
    """uint8 [T, H, W, 3] RGB."""
    size: tuple[int, int]
    """(height, width) of the frames in the files; ``frames`` may be smaller."""


class EncodedImage(NamedTuple):
    """A JPEG or PNG that is not decoded yet."""

    read: Callable[[], bytes]
    """Returns the content of the file."""
    source: object
    """Where it comes from, which error messages name."""

    def decode(self) -> Frame:
        """Return the image, uint8 [H, W, 3] RGB.

        Raises:
            InputError: It cannot be read or decoded.

        """
        return decode_frame(self.read(), self.source)


def open_frames(paths: Sequence[Path], side: int | None = None) -> Footage:
    """Open frames in files; see `open_footage`."""
    return open_footage([EncodedImage(partial(read_bytes, path), path) for path in paths], side)


def open_footage(images: Sequence[EncodedImage], side: int | None) -> Footage:
    """Open the frames of a clip.

    The frames of a short clip are decoded at once (`keep_if_short`), those of a longer one whenever
    they are read.

    Args:
        images: The frames.
        side: Side of the squares that each frame is resized to when it is decoded, in pixels; None
            to leave frames as they are.

    Raises:
        InputError: A frame cannot be read, is not an image, or differs in size from the first. For
            a long clip also later, while its frames are read.

    """
    first = images[0].decode().shape
    height, width = first[:2]

    def read(number: int) -> Frame:
        frame = images[number].decode()
        _check_size(frame, images[number].source, first)
        return frame if side is None else resize_frame(frame, side, side)

    shape = (height, width, 3) if side is None else (side, side, 3)
    return Footage(keep_if_short(LazyImages(read, len(images), shape)), (height, width))


def _check_size(image: Image, source: object, first: tuple[int, ...]) -> None:
    if image.shape != first:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (image.shape, first)]
        raise InputError(f"{source} is {sizes[0]}, but the first of its clip is {sizes[1]}.")


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


def open_masks(paths: Sequence[Path], frames: ImageSequence) -> ImageSequence:
    """Open the object index at each pixel of a clip, uint8 [T, H, W], 0 for the background.

    Void pixels, labelled 255, become background, as in the evaluation of DAVIS-2017. As of frames
    (`open_footage`), those of a short clip are decoded at once.

    Args:
        paths: A palette or grey PNG for each frame.
        frames: Frames of the clip, uint8 [T, H, W, 3].

    Raises:
        InputError: A file cannot be read, is not a palette or grey PNG, or differs in size from
            the frames, or the number of files differs.

    """
    first = read_mask(paths[0], white=1).shape
    if (len(paths), *first) != frames.shape[:3]:
        counts = (len(paths), *first), frames.shape
        sizes = [f"{count[0]} of {count[2]} x {count[1]}" for count in counts]
        raise InputError(f"{paths[0].parent}: masks {sizes[0]} for frames {sizes[1]}.")

    def read(number: int) -> Mask:
        mask = read_mask(paths[number], white=1)
        _check_size(mask, paths[number], first)
        return np.where(mask == _VOID, np.uint8(0), mask)

    return keep_if_short(LazyImages(read, len(paths), first))


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: The file does not exist, or cannot be read.

    """
    try:
        return read_file(path, _MAX_SIZE)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
