"""Photographs for the textures of scenes, and those held out for validation."""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_LONG_SIDE = 900
_SHORTEST_SIDE = 200
_LEAST_CONTRAST = 12.0
_RUN, _PERIOD = 4, 7

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class Photos:
    """Photographs for training and for validation, each uint8 [H, W, 3] RGB."""

    training: tuple[Photo, ...]
    held_out: tuple[Photo, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all photographs in order."""
        digest = hashlib.sha256()
        for photo in (*self.training, *self.held_out):
            digest.update(repr(photo.shape).encode())
            digest.update(photo.tobytes())
        return digest.hexdigest()


def packaged_folders() -> list[Path]:
    """Return the folders of photographs inside scikit-image and scikit-learn, if installed."""
    inside = {"skimage": "data", "sklearn": "datasets/images"}
    found = []
    for package, folder in inside.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent / folder)
    return found


def load_photos(folders: Iterable[Path]) -> Photos:
    """Read all photographs below some folders, except small, flat and repeated ones.

    Similar pictures are neighbours when sorted, so runs of neighbours are held out: a single
    picture held out would have its twin in the training part.
    """
    photos = list(_drop_duplicates(_read_folders(folders)))
    held_out = [photo for i, photo in enumerate(photos) if i // _RUN % _PERIOD == _PERIOD - 1]
    training = [photo for i, photo in enumerate(photos) if i // _RUN % _PERIOD != _PERIOD - 1]
    return Photos(tuple(training), tuple(held_out))


def _read_folders(folders: Iterable[Path]) -> Iterator[Photo]:
    for folder in folders:
        # Sorted by the path inside the folder, so that the order does not depend on the machine.
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        for path in paths:
            photo = _read(path)
            if photo is not None:
                yield photo


def _read(path: Path) -> Photo | None:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or min(image.shape[:2]) < _SHORTEST_SIDE:
        return None
    scale = _LONG_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return None if image.std() < _LEAST_CONTRAST else _to_rgb(image)


def _to_rgb(image: NDArray[Any]) -> Photo:
    return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)


def _drop_duplicates(photos: Iterable[Photo]) -> Iterator[Photo]:
    """Yield each picture once; wallpapers come in several sizes and crops."""
    seen: list[NDArray[np.float64]] = []
    for photo in photos:
        thumbnail = cv2.resize(photo, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float64)
        if all(np.abs(thumbnail - other).mean() > 8 for other in seen):
            seen.append(thumbnail)
            yield photo
