"""Frames and masks as image files, one a frame."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError

FRAME_TYPES = (".jpg", ".jpeg", ".png")
_VOID = 255


def image_paths(folder: Path, types: Sequence[str] = FRAME_TYPES) -> list[Path]:
    """Return the images in a folder, in the order of their numbers.

    Raises:
        InputError: no such folder, or no image in it.

    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Unpack the data set again.")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in types]
    if not paths:
        raise InputError(f"{folder} holds no {' or '.join(types)} file.")
    # Numbers without leading zeros, as FFmpeg may write them, stay in order.
    return sorted(paths, key=lambda path: (len(path.stem), path.name))


def read_frames(paths: Sequence[Path]) -> Frame:
    """Read frames [T, H, W, 3] RGB.

    Raises:
        InputError: a file cannot be read, is no image, or has another size than the first.

    """
    return joined(((decoded(read_bytes(path), path), path) for path in paths), len(paths))


def joined(images: Iterable[tuple[Frame, object]], count: int) -> Frame:
    """Put ``count`` images of one size, each with where it comes from, into one array.

    Raises:
        InputError: one has another size than the first.

    """
    rest = iter(images)
    first, _ = next(rest)
    # A list and its copy would take the memory of a clip twice.
    whole = np.empty((count, *first.shape), np.uint8)
    whole[0] = first
    for t, (image, where) in enumerate(rest, start=1):
        if image.shape != first.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (image.shape, first.shape)]
            raise InputError(f"{where} is {sizes[0]}, the first of its clip {sizes[1]}.")
        whole[t] = image
    return whole


def decoded(image: bytes, where: object) -> Frame:
    """Decode a JPEG or PNG to [H, W, 3] RGB, as its pixels are stored.

    Raises:
        InputError: the bytes are no whole image; the message begins with ``where``.

    """
    # The data sets' own readers do not turn a picture by its EXIF tag either.
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        frame = cv2.imdecode(np.frombuffer(image, np.uint8), how)
    except cv2.error:
        frame = None
    if frame is None:
        raise InputError(f"{where} is no JPEG or PNG image, or a damaged one. Copy it again.")
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


def read_masks(paths: Sequence[Path], frames: Frame) -> Frame:
    """Read the index of the object at each pixel [T, H, W] of frames [T, H, W, 3].

    0 is the background. Void pixels, labelled 255, count as background too, as in the evaluation of
    DAVIS-2017.

    Raises:
        InputError: the files are not those of the frames, or one cannot be read, is no palette or
            grey image, or has another size than the frames.

    """
    masks = joined(((_labels(path), path) for path in paths), len(paths))
    if masks.shape != frames.shape[:3]:
        sizes = [f"{len(a)} of {a.shape[2]} x {a.shape[1]}" for a in (masks, frames)]
        raise InputError(f"{paths[0].parent}: masks {sizes[0]} for frames {sizes[1]}.")
    return masks


def _labels(path: Path) -> Frame:
    """Labels [H, W] of one mask.

    Raises:
        InputError: the file cannot be read, or is no palette or grey image.

    """
    try:
        # OpenCV turns a palette's indices into colours.
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    except ImportError as error:
        raise InputError("masks are read with Pillow. pip install 'vditrack[eval]'.") from error
    try:
        with Image.open(path) as image:
            mode, labels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"{path} is no PNG image, or a damaged one. Copy it again.") from error
    if mode not in ("P", "L", "1"):
        raise InputError(
            f"{path} has colours ({mode}). A mask is a palette or grey PNG of object indices."
        )
    return np.asarray(np.where(labels == _VOID, 0, labels), np.uint8)


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        InputError: there is none, or it cannot be read.

    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
