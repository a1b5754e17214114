"""Reads a folder of JPEG or PNG images as a clip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.io.clip import (
    ArrayPicture,
    DecodeProgress,
    MakeSink,
    Picture,
    Selection,
    Sink,
    describe_gaps,
)
from vditrack.io.decoding.reliability import group_gaps
from vditrack.ros_messages.brightness import HIGH_BYTE, CurveMeter, Reduction
from vditrack.ros_messages.jpeg_files import complete_jpeg, is_jpeg

IMAGE_RATE = 30
"""Frames per second that are assumed for a folder of images, which has no times."""

_TYPES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_BAG_FILES = (".mcap", ".db3")
_NUMBER = re.compile(r"(\d+)")
_MEASURED_IMAGES = 32
"""Number of images in which 16-bit values are measured."""
_MAX_SPARSE = 100
"""Mean distance of numbers in names, in steps, above which they are no frame numbers."""
_NAMED = 3
"""Damaged files that a remark names."""


def is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder that has no file of a rosbag2."""
    if not path.is_dir():
        return False
    names = [file.name for file in path.iterdir()]
    return not any(name == "metadata.yaml" or name.endswith(_BAG_FILES) for name in names)


class FolderReader:
    """Reads a folder of images in the order of the numbers in their names.

    `IMAGE_RATE` is assumed. If the names differ in one number only and some numbers are missing,
    frames are missing. Images that are damaged are left out. The orientation in the metadata is
    applied, as by image viewers. Grey becomes RGB, alpha is dropped, and 16 bits are reduced to 8
    by one curve for all images.
    """

    def __init__(self, folder: Path, start: float, end: float | None) -> None:
        """Find the images.

        Args:
            folder: The folder; other files in it are ignored.
            start: Start of the part, in seconds after the first image.
            end: End of the part (exclusive), in seconds; None for the last image.

        Raises:
            InputError: The folder has no images, or both JPEG and PNG, or the part has no image.

        """
        self.path = folder
        paths = _check_types(folder, _list_images(folder))
        places = _number_frames(paths)
        self._files = [
            (path, place / IMAGE_RATE)
            for path, place in zip(paths, places, strict=True)
            if start <= place / IMAGE_RATE and (end is None or place / IMAGE_RATE < end)
        ]
        if not self._files:
            raise InputError(
                f"{folder} has no image between {start:g} s and {end or 'its end'}: at "
                f"{IMAGE_RATE} frames per second its {len(paths)} images last "
                f"{(places[-1] + 1) / IMAGE_RATE:.2f} s."
            )
        self._reduce: Reduction = HIGH_BYTE.reduce
        self._intact: list[Path] = []

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """See `ClipReader`.

        Raises:
            InputError: All images are damaged, or images differ in size.

        """
        remarks = [
            f"{self.path} has no times: {IMAGE_RATE} frames per second are assumed. Convert it to "
            "a video to give others."
        ]
        self._reduce, remark = _measure_curve([path for path, _ in self._files])
        remarks += [remark] if remark else []
        sink, damaged, size = make_sink(self.path, len(self._files)), [], None
        self._intact = []
        for path, time in self._files:
            frame = _decode(path, self._reduce)
            if frame is None:
                damaged.append((path, time))
                continue
            size = size or frame.shape
            if frame.shape != size:
                sizes = [f"{shape[1]} x {shape[0]}" for shape in (frame.shape, size)]
                raise InputError(
                    f"{path} is {sizes[0]}, but the images before it are {sizes[1]}. Put images of "
                    "one size into a folder."
                )
            sink.append(ArrayPicture(frame), time)
            self._intact.append(path)
            if progress is not None:
                progress(len(sink.times), len(self._files))
        if not sink.times:
            raise InputError(
                f"{self._files[0][0]} and all other images are damaged. Copy them again."
            )
        times = [time for _, time in self._files]
        return sink, _select(sink.times, times, damaged, remarks)

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """See `ClipReader`."""
        for path in self._intact[first:]:
            frame = _decode(path, self._reduce)
            if frame is None:
                return
            yield ArrayPicture(frame)


def _select(
    decoded: Sequence[float],
    times: Sequence[float],
    damaged: Sequence[tuple[Path, float]],
    remarks: list[str],
) -> Selection:
    """Return all decoded frames with their gaps: damaged files, and numbers without a file."""
    known = {round(time * IMAGE_RATE) for time in times}
    unnumbered = [place for place in range(min(known), max(known)) if place not in known]
    missing = sorted([*(place / IMAGE_RATE for place in unnumbered), *(t for _, t in damaged)])
    gaps = group_gaps(missing, decoded, 1 / IMAGE_RATE)
    if damaged:
        names = ", ".join(path.name for path, _ in damaged[:_NAMED])
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        reason = f"{names}{more} cannot be decoded."
    else:
        reason = "their numbers have no file."
    remarks += describe_gaps(gaps, reason)
    return Selection(np.array(decoded), range(len(decoded)), tuple(gaps), tuple(remarks))


def _list_images(folder: Path) -> list[Path]:
    """Return the images in a folder in the natural order of their names."""
    images = [
        path
        for path in folder.iterdir()
        # Names that begin with a dot are of the system, such as "._1.jpg".
        if path.suffix.lower() in _TYPES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[bool, int | str]], str]:
    """Return a key that sorts numbers in names by their value."""
    parts = [part for part in _NUMBER.split(path.stem) if part]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts], (
        path.name
    )


def _check_types(folder: Path, paths: list[Path]) -> list[Path]:
    """Return the images if they are of one type.

    Raises:
        InputError: There are none, or they are of two types.

    """
    if not paths:
        raise InputError(
            f"{folder} is a folder without JPEG or PNG images, and not a rosbag2: it has no "
            "metadata.yaml. Give a folder that has the images, a video file or a bag."
        )
    counts = {kind: 0 for kind in _TYPES.values()}
    for path in paths:
        counts[_TYPES[path.suffix.lower()]] += 1
    if all(counts.values()):
        raise InputError(
            f"{folder} has {counts['JPEG']} JPEG and {counts['PNG']} PNG images. Put the frames "
            "into a folder of their own."
        )
    return paths


def _number_frames(paths: Sequence[Path]) -> list[int]:
    """Return the number of each frame, from 0.

    The numbers are those of the names, if these differ in one number only and it grows by multiples
    of one step; otherwise the images are counted.
    """
    counted = list(range(len(paths)))
    split = [_NUMBER.split(path.stem) for path in paths]
    if len(paths) < 2 or len({len(parts) for parts in split}) > 1:
        return counted
    varying = [
        place
        for place in range(1, len(split[0]), 2)
        if len({int(parts[place]) for parts in split}) > 1
    ]
    texts = {tuple(parts[::2]) for parts in split}
    if len(varying) != 1 or len(texts) > 1:
        return counted
    numbers = [int(parts[varying[0]]) for parts in split]
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps)
    if step < 1 or any(distance % step for distance in steps):
        return counted
    if numbers[-1] - numbers[0] > _MAX_SPARSE * step * len(numbers):
        return counted
    return [(number - numbers[0]) // step for number in numbers]


def _measure_curve(paths: Sequence[Path]) -> tuple[Reduction, str | None]:
    """Return what reduces 16 bits to 8, from some of the images, and a remark if they have 16."""
    meter, curve = CurveMeter(), None
    if _TYPES[paths[0].suffix.lower()] == "PNG":
        for path in paths[:: max(1, len(paths) // _MEASURED_IMAGES)]:
            _decode(path, meter.reduce)
            if (curve := meter.fit()) is None:
                break
    if curve is None:
        return HIGH_BYTE.reduce, None
    remark = (
        f"the images have 16 bits; their values from {curve} are reduced to 8 bits, in all images "
        "alike."
    )
    return curve.reduce, remark


def _decode(path: Path, reduce: Reduction) -> Frame | None:
    """Decode an image, uint8 [H, W, 3] RGB; return None if it is damaged.

    Raises:
        InputError: The file cannot be read.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    whole = complete_jpeg(data, check_scans=True) if is_jpeg(data) else data
    if not whole:
        return None
    try:
        # Without IMREAD_IGNORE_ORIENTATION, OpenCV turns the image as its metadata says.
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        decoded = cv2.imdecode(np.frombuffer(whole, np.uint8), flags)
    except cv2.error:
        return None
    if decoded is None or decoded.dtype not in (np.uint8, np.uint16):
        return None
    pixels = reduce(decoded) if decoded.dtype == np.uint16 else decoded
    conversion = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
