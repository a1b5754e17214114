"""Batches of crops of stored clips, which depend on the seed and the number of the step alone."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Ints
from vditrack_export.tiny.clip_store import FRAMES, ClipStore, StoredClip
from vditrack_export.tiny.model import STRIDE

MIRRORED, RECOLOURED = 0.5, 0.3
"""The shares of clips that are mirrored, and whose colours are exchanged."""
BLURRED, COMPRESSED = 0.6, 0.3
"""The shares of clips that have fewer details, and that are compressed, but not for the teacher."""
FEWER = 2.4
"""Most by which details are fewer along an axis, but for a change of the aspect."""
_ASPECT = 0.25
_QUALITY = (25, 90)
POINTS = 48
"""Points of a clip whose matches are learnt."""
MAX_SHIFT = 6
"""Cells by which crops of one clip are apart at most: places alone are no match."""


@dataclass(frozen=True)
class Batch:
    """Clips of four frames: first those whose motion is known, last those of the teacher."""

    frames: NDArray[np.uint8]
    """RGB, uint8 [B, 4, h, w, 3]."""
    points: Floats
    """Positions in the first K clips, float32 [K, N, 4, 2] (x, y) in pixels."""
    visible: Bools
    """Visibility there, bool [K, N, 4]."""
    teacher: NDArray[np.float16]
    """The teacher's unit descriptors of the last M clips, [M, 4, rows, columns, D]."""


@dataclass(frozen=True)
class Clips:
    """The clips of a run."""

    rendered: ClipStore
    """Clips of known motion."""
    footage: ClipStore | None
    """Clips of the user's footage, with the teacher's descriptors. None if rendered clips have
    these."""
    crop: tuple[int, int]
    """(height, width) of the crops, in pixels."""

    def draw(self, seed: int, step: int, size: int) -> Batch:
        """Return the batch of a step: crops of ``size`` clips, half of them of footage if any."""
        rng = np.random.default_rng((seed, step))
        known = size if self.footage is None else (size + 1) // 2
        rendered = [self._crop(rng, self.rendered) for _ in range(known)]
        filmed = [self._crop(rng, self.footage) for _ in range(size - known) if self.footage]
        taught = filmed if self.footage is not None else rendered
        chosen = [_choose_points(rng, clip) for clip in rendered]
        return Batch(
            np.stack([clip.frames for clip in (*rendered, *filmed)]),
            np.stack([clip.points[kept] for clip, kept in zip(rendered, chosen, strict=True)]),
            np.stack([clip.visible[kept] for clip, kept in zip(rendered, chosen, strict=True)]),
            np.stack([clip.teacher for clip in taught]),
        )

    def _crop(self, rng: np.random.Generator, store: ClipStore) -> StoredClip:
        clip = store.read(int(rng.integers(len(store))))
        cropped = crop_clip(clip, _draw_corners(rng, clip.frames.shape[1:3], self.crop), self.crop)
        if rng.random() < MIRRORED:
            cropped = mirror_clip(cropped)
        frames = degrade_frames(rng, cropped.frames)
        if rng.random() < RECOLOURED:
            frames = frames[..., rng.permutation(3)]
        return StoredClip(frames, cropped.teacher, cropped.points, cropped.visible)


def _draw_corners(
    rng: np.random.Generator, size: tuple[int, ...], crop: tuple[int, int]
) -> list[tuple[int, int]]:
    """Draw the row and the column of the first cell of a crop of each frame."""
    room = [(whole - part) // STRIDE for whole, part in zip(size, crop, strict=True)]
    corners = np.empty((FRAMES, 2), np.int64)
    for axis, most in enumerate(room):
        first = rng.integers(most + 1)
        shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, FRAMES)
        corners[:, axis] = np.clip(first + shifts, 0, most)
    return [(int(row), int(column)) for row, column in corners]


def crop_clip(
    clip: StoredClip, corners: list[tuple[int, int]], size: tuple[int, int]
) -> StoredClip:
    """Return crops of the frames of a clip.

    Points outside a crop are hidden there.

    Args:
        clip: the clip.
        corners: row and column of the first cell of each frame's crop.
        size: (height, width) of the crops, in pixels.

    """
    (height, width), (rows, columns) = size, (side // STRIDE for side in size)
    frames, teacher = [], []
    for number, (row, column) in enumerate(corners):
        top, left = row * STRIDE, column * STRIDE
        frames.append(clip.frames[number, top : top + height, left : left + width])
        teacher.append(clip.teacher[number, row : row + rows, column : column + columns])
    moved = clip.points - STRIDE * np.array(corners, np.float32)[None, :, ::-1]
    inside = ((moved >= 0) & (moved < (width, height))).all(axis=-1)
    return StoredClip(
        np.stack(frames), np.stack(teacher), moved.astype(np.float32), clip.visible & inside
    )


def degrade_frames(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames as of a smaller or compressed recording, some of the time.

    Recordings are smaller than what a model reads as often as not, and are enlarged for it.

    Args:
        rng: the source of randomness.
        frames: RGB, uint8 [T, H, W, 3].

    """
    height, width = frames.shape[1:3]
    if rng.random() < BLURRED:
        fewer, aspect = rng.uniform(1, FEWER), np.exp(rng.uniform(-_ASPECT, _ASPECT))
        smaller = (
            min(width, round(width / fewer * aspect)),
            min(height, round(height / fewer / aspect)),
        )
        shrunk = (cv2.resize(frame, smaller, interpolation=cv2.INTER_AREA) for frame in frames)
        frames = np.stack([cv2.resize(frame, (width, height)) for frame in shrunk])
    if rng.random() < COMPRESSED:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_QUALITY))]
        files = (cv2.imencode(".jpg", frame, quality)[1] for frame in np.ascontiguousarray(frames))
        frames = np.stack(
            [np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8) for file in files]
        )
    return frames


def mirror_clip(clip: StoredClip) -> StoredClip:
    """Return a clip with left and right exchanged."""
    points = clip.points.copy()
    points[..., 0] = clip.frames.shape[2] - points[..., 0]
    return StoredClip(clip.frames[:, :, ::-1], clip.teacher[:, :, ::-1], points, clip.visible)


def _choose_points(rng: np.random.Generator, clip: StoredClip) -> Ints:
    return rng.permutation(len(clip.points))[:POINTS]
