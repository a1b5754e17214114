"""Tracks and masks drawn over the frames they belong to."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Frame
from vditrack.coordinates import cells_from_pixels
from vditrack.points.tracks import Tracks

_TRAIL = 24
"""Frames that a trail goes back."""
_FADES = (0.25, 0.5, 0.75, 1.0)
"""Opacity of a trail, from its old end to the point."""
SHIFT = 4
"""Binary digits after the point in the coordinates that OpenCV draws at."""
_TINT = 0.5
"""Opacity of an object's colour inside its outline."""


def point_colours(queries: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB colours [N, 3] by where each point was asked for: hue along x, brightness along y."""
    if not len(queries):
        return np.zeros((0, 3), np.uint8)  # OpenCV converts no empty array.
    height, width = size
    hue = queries[:, 1] / width * 150
    value = 255 - 90 * queries[:, 2] / height
    hsv = np.stack([hue, np.full_like(hue, 220), value], axis=1)[:, None]
    rgb = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return np.asarray(rgb[:, 0], np.uint8)


def overlay(
    frames: Frame, tracks: Tracks, masks: NDArray[np.uint8] | None = None
) -> Iterator[Frame]:
    """Yield each frame [H, W, 3] with its points on it, and the trails that led there.

    A point is a disc where it is visible and a ring where it is not; trails fade with age and show
    only stretches in which the point was visible.

    Args:
        frames: uint8 [T, H, W, 3] RGB.
        tracks: of the same T frames.
        masks: uint8 [T, H, W] of objects, to be drawn below the points.

    """
    size = frames.shape[1:3]
    colours = point_colours(tracks.queries, size).tolist()
    radius = point_radius(size)
    places = fixed_point(tracks.points)
    linked = tracks.visible[:, 1:] & tracks.visible[:, :-1]
    below = frames if masks is None else mask_overlay(frames, masks)
    for t, frame in enumerate(below):
        canvas = np.array(frame, np.uint8, order="C")
        draw_trails(canvas, places[:, : t + 1], linked[:, :t], colours, max(1, round(radius / 2)))
        for n, colour in enumerate(colours):
            draw_point(canvas, places[n, t], tracks.visible[n, t], colour, radius)
        yield canvas


def object_colours() -> NDArray[np.uint8]:
    """RGB colours [256, 3] of objects by index, those of DAVIS and PASCAL VOC: 0 is black.

    The bits of the index go in turn to red, green and blue, the lowest to the highest of each.
    """
    bits = np.arange(256)[:, None] >> np.arange(9) & 1
    colours = bits.reshape(256, 3, 3).transpose(0, 2, 1) @ np.array([128, 64, 32])
    return np.asarray(colours, np.uint8)


def mask_overlay(frames: Frame, masks: NDArray[np.uint8]) -> Iterator[Frame]:
    """Yield each frame [H, W, 3] with its objects tinted in their colours and outlined.

    Args:
        frames: uint8 [T, H, W, 3] RGB.
        masks: uint8 [T, H, W] of indices, 0 for the background.

    """
    colours = object_colours()
    thickness = max(1, round(min(frames.shape[1:3]) / 240))
    around = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
    for frame, mask in zip(frames, masks, strict=True):
        painted = colours[mask]
        tinted = cv2.addWeighted(frame, 1 - _TINT, painted, _TINT, 0)
        # A border lies where another index is within reach; it is drawn inside the objects.
        border = (cv2.dilate(mask, around) != mask) | (cv2.erode(mask, around) != mask)
        inside = mask[..., None] > 0
        canvas = np.where(inside, tinted, frame)
        yield np.where(border[..., None] & inside, painted, canvas)


def draw_trails(
    canvas: Frame,
    places: NDArray[np.int32],
    linked: NDArray[np.bool_],
    colours: Sequence[Sequence[int]],
    thickness: int,
    opacities: Sequence[float] = _FADES,
) -> None:
    """Draw the trails of N points on a picture, as far back as trails go.

    Args:
        canvas: uint8 [H, W, 3] RGB, drawn on in place.
        places: [N, K, 2] positions in K successive frames, from `fixed_point`.
        linked: [N, K - 1]; a step is drawn where it is true.
        colours: N colours, RGB.
        thickness: of the lines, in pixels.
        opacities: of equal parts of the trail, oldest first.

    """
    latest = linked.shape[1]
    band = _TRAIL // len(opacities)
    for age, opacity in zip(range(len(opacities), 0, -1), opacities, strict=True):
        first, end = max(0, latest - age * band), max(0, latest - (age - 1) * band)
        layer = canvas.copy()
        for path, steps, colour in zip(
            places[:, first:], linked[:, first:end], colours, strict=True
        ):
            # A run of linked steps begins and ends where the flag changes.
            turns = np.flatnonzero(np.diff(np.pad(steps.astype(np.int8), 1)))
            runs = [path[begin : stop + 1] for begin, stop in turns.reshape(-1, 2).tolist()]
            cv2.polylines(layer, runs, False, colour, thickness, cv2.LINE_AA, SHIFT)
        cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def draw_point(
    canvas: Frame, place: NDArray[np.int32], seen: bool, colour: Sequence[int], radius: float
) -> None:
    """Draw a point on a picture: a disc with a dark rim if it is visible, otherwise a ring.

    Args:
        canvas: uint8 [H, W, 3] RGB, drawn on in place.
        place: [2] position, from `fixed_point`.
        seen: whether the point is visible.
        colour: RGB.
        radius: in pixels.

    """
    centre, size = place.tolist(), round(radius * 2**SHIFT)
    if seen:
        # A dark rim keeps the disc apart from a ground of its own colour.
        rim = size + 2**SHIFT
        cv2.circle(canvas, centre, rim, (0, 0, 0), cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas, centre, size, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
    else:
        thickness = max(1, round(radius / 3))
        cv2.circle(canvas, centre, size, colour, thickness, cv2.LINE_AA, SHIFT)


def point_radius(size: tuple[int, int]) -> float:
    """Return the radius of points, in pixels, on a picture of (height, width)."""
    # OpenCV draws a circle of less than 3 pixels as a diamond.
    return max(3.0, min(size) / 80)


def fixed_point(points: Floats) -> NDArray[np.int32]:
    """Return pixel coordinates [..., 2] as OpenCV draws them, in fixed-point numbers.

    OpenCV counts from the first pixel's centre, points from its corner.
    """
    # Far outside the picture nothing is drawn, and the scaled numbers would overflow.
    near = np.clip(cells_from_pixels(points, 1), -9999, 99999)
    return np.asarray(np.rint(near * 2**SHIFT), np.int32)
