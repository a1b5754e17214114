"""Draws tracks and masks on frames."""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Frame, Mask
from vditrack.coordinates import cells_from_pixels
from vditrack.points.tracks import Tracks

_TRAIL = 24
"""Length of a trail, in frames."""
_FADES = (0.25, 0.5, 0.75, 1.0)
"""Opacities of the quarters of a trail, oldest first."""
SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws at."""
_TINT = 0.5
"""Opacity of an object's colour inside its outline."""

Colours = NDArray[np.uint8]
"""uint8 [N, 3], RGB."""
FixedPoints = NDArray[np.int32]
"""int32 [..., 2] (x, y) in sixteenths of a pixel, from the centre of the first pixel."""


def choose_point_colours(queries: Floats, size: tuple[int, int]) -> Colours:
    """Return the colours of points by their queries: hue along x, brightness along y.

    Args:
        queries: float32 [N, 3] (t, x, y), in pixels.
        size: Height and width of the frames.

    """
    if not len(queries):
        return np.zeros((0, 3), np.uint8)  # OpenCV does not convert empty arrays.
    height, width = size
    hue = queries[:, 1] / width * 150
    value = 255 - 90 * queries[:, 2] / height
    hsv = np.stack([hue, np.full_like(hue, 220), value], axis=1)[:, None]
    rgb = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return np.asarray(rgb[:, 0], np.uint8)


def draw_tracks(
    frames: Iterable[Frame], tracks: Tracks, masks: Iterable[Mask] | None = None
) -> Iterator[Frame]:
    """Yield each frame [H, W, 3] with its points and their trails.

    A visible point is a disc, an invisible one a ring. Trails fade with age and leave out steps
    in which the point was invisible.

    Args:
        frames: T frames, uint8 [H, W, 3] RGB; not drawn on.
        tracks: Tracks in the same T frames.
        masks: T masks [H, W] of objects, drawn below the points.

    """
    below = frames if masks is None else draw_masks(frames, masks)
    colours: list[list[int]] | None = None
    for t, frame in enumerate(below):
        size = frame.shape[0], frame.shape[1]
        if colours is None:
            colours = choose_point_colours(tracks.queries, size).tolist()
        radius = choose_point_radius(size)
        first = max(0, t - _TRAIL)
        positions = to_fixed_point(tracks.points[:, first : t + 1])
        visible = tracks.visible[:, first : t + 1]
        canvas = np.array(frame, np.uint8, order="C")
        linked = visible[:, 1:] & visible[:, :-1]
        draw_trails(canvas, positions, linked, colours, max(1, round(radius / 2)))
        for n, colour in enumerate(colours):
            draw_point(canvas, positions[n, -1], visible[n, -1], colour, radius)
        yield canvas


def make_object_colours() -> Colours:
    """Return the colours [256, 3] of objects by index, those of DAVIS and PASCAL VOC.

    The bits of the index go to red, green and blue in turn, the lowest bit of the index to the
    highest bit of red. Index 0 is black.
    """
    bits = np.arange(256)[:, None] >> np.arange(9) & 1
    colours = bits.reshape(256, 3, 3).transpose(0, 2, 1) @ np.array([128, 64, 32])
    return np.asarray(colours, np.uint8)


def draw_masks(frames: Iterable[Frame], masks: Iterable[Mask]) -> Iterator[Frame]:
    """Yield each frame [H, W, 3] with its objects tinted in their colours and outlined.

    Args:
        frames: T frames, uint8 [H, W, 3] RGB; not drawn on.
        masks: Masks [H, W] of the same T frames.

    """
    colours = make_object_colours()
    for frame, mask in zip(frames, masks, strict=True):
        thickness = max(1, round(min(mask.shape) / 240))
        around = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
        painted = colours[mask]
        tinted = cv2.addWeighted(frame, 1 - _TINT, painted, _TINT, 0)
        # An outline is where another index is near; it is drawn inside the objects.
        outline = (cv2.dilate(mask, around) != mask) | (cv2.erode(mask, around) != mask)
        inside = mask[..., None] > 0
        canvas = np.where(inside, tinted, frame)
        yield np.where(outline[..., None] & inside, painted, canvas)


def draw_trails(
    canvas: Frame,
    positions: FixedPoints,
    linked: Bools,
    colours: Sequence[Sequence[int]],
    thickness: int,
    opacities: Sequence[float] = _FADES,
) -> None:
    """Draw the trails of N points on a frame.

    Args:
        canvas: uint8 [H, W, 3] RGB, drawn on in place.
        positions: [N, K, 2], in K successive frames.
        linked: bool [N, K - 1], which steps are drawn.
        colours: N colours, RGB.
        thickness: Thickness of the lines, in pixels.
        opacities: Opacities of equal parts of the trail, oldest first.

    """
    latest = linked.shape[1]
    band = _TRAIL // len(opacities)
    for age, opacity in zip(range(len(opacities), 0, -1), opacities, strict=True):
        first, end = max(0, latest - age * band), max(0, latest - (age - 1) * band)
        layer = canvas.copy()
        for path, steps, colour in zip(
            positions[:, first:], linked[:, first:end], colours, strict=True
        ):
            # A run of linked steps begins and ends where the flag changes.
            turns = np.flatnonzero(np.diff(np.pad(steps.astype(np.int8), 1)))
            runs = [path[begin : stop + 1] for begin, stop in turns.reshape(-1, 2).tolist()]
            cv2.polylines(layer, runs, False, colour, thickness, cv2.LINE_AA, SHIFT)
        cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def draw_point(
    canvas: Frame, position: FixedPoints, visible: bool, colour: Sequence[int], radius: float
) -> None:
    """Draw a point on a frame: a disc with a dark rim if it is visible, otherwise a ring.

    Args:
        canvas: uint8 [H, W, 3] RGB, drawn on in place.
        position: [2].
        visible: Whether the point is visible.
        colour: RGB.
        radius: Radius in pixels.

    """
    centre, size = position.tolist(), round(radius * 2**SHIFT)
    if visible:
        # A dark rim separates the disc from a background of the same colour.
        rim = size + 2**SHIFT
        cv2.circle(canvas, centre, rim, (0, 0, 0), cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas, centre, size, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
    else:
        thickness = max(1, round(radius / 3))
        cv2.circle(canvas, centre, size, colour, thickness, cv2.LINE_AA, SHIFT)


def choose_point_radius(size: tuple[int, int]) -> float:
    """Return the radius of points, in pixels, on a frame of (height, width)."""
    # OpenCV draws a circle of less than 3 pixels as a diamond.
    return max(3.0, min(size) / 80)


def to_fixed_point(points: Floats) -> FixedPoints:
    """Return pixel coordinates [..., 2] as the fixed-point numbers that OpenCV draws at.

    OpenCV counts from the centre of the first pixel, points count from its corner.
    """
    # Far outside the frame nothing is drawn, and the scaled numbers would overflow.
    near = np.clip(cells_from_pixels(points, 1), -9999, 99999)
    return np.asarray(np.rint(near * 2**SHIFT), np.int32)
