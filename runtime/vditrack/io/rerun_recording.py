"""Writes recordings (.rrd) for the Rerun viewer: pictures, points, trails and masks over time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError, install_command
from vditrack.io.overlay import make_object_colours
from vditrack.io.piped_file import piped_file
from vditrack.io.viewed_frames import ViewedFrame, ViewedPoints

SUFFIX = ".rrd"
"""Suffix of a recording."""
PICTURES, OBJECTS, TRAILS = "video", "video/objects", "video/trails"
POINTS, VISIBLE, INVISIBLE = "video/points", "video/points/visible", "video/points/invisible"
OVER_TIME, COUNT, CONFIDENCE = "over_time", "visible_points", "median_confidence"
"""Paths of the entities in a recording."""

_TRAIL = 24
"""Length of a trail, in frames."""
_JPEG_QUALITY = 85
_RADIUS = {VISIBLE: -4.0, INVISIBLE: -2.5}
"""Radii of points; Rerun takes negative ones as sizes on the screen, the same at every zoom."""
_OPACITY = {VISIBLE: 255, INVISIBLE: 110}
_TRAIL_OPACITY = 150
_MASK_OPACITY = 0.5
_GOLDEN_RATIO = 0.618034
"""Multiples of it, modulo 1, are spread evenly, so that successive ids differ in hue."""


def import_rerun() -> Any:  # noqa: ANN401
    """Import the Rerun SDK, an optional dependency of the runtime.

    Raises:
        InputError: It is not installed or cannot be imported.

    """
    try:
        import_module("rerun.blueprint")
        return import_module("rerun")
    # It raises RuntimeError on a Python that it does not support.
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"rerun-sdk, which writes recordings for the Rerun viewer, cannot be imported ({error})"
            f". Run `{install_command('rerun')}`; it needs Python 3.11 and NumPy 2, or newer."
        ) from error


def write_recording(
    path: Path, frames: Iterable[ViewedFrame], names: Mapping[int, str] | None = None
) -> None:
    """Write frames and results to a recording with the timelines ``frame`` and ``time``.

    Images of a bag are also on the timeline ``stamp``. Positions are in pixels, and (0, 0) is the
    upper-left corner of the picture, as Rerun has it.

    Args:
        path: Destination, replaced when all frames are written.
        frames: In the order of their numbers.
        names: Names of objects by index, where they have one.

    Raises:
        InputError: rerun-sdk is not installed, its environment variable turns it off, or the file
            cannot be written.

    """
    rerun = import_rerun()
    # The SDK waits for ever, or only logs an error, if a file cannot be written.
    with staged_file(path) as scratch, piped_file(scratch) as pipe:
        recording = rerun.RecordingStream("vditrack")
        if not rerun.is_enabled(recording):
            raise InputError(f"{path} is not written: the environment sets RERUN=off. Unset it.")
        remaining = iter(frames)
        first = list(islice(remaining, 1))
        picture = first[0].picture if first else None
        try:
            recording.save(pipe.name, default_blueprint=_arrange_views(rerun, picture))
            writer = _RecordingWriter(rerun, recording, names or {})
            for frame in chain(first, remaining):
                writer.write(frame)
                pipe.check()
        finally:
            recording.disconnect()


def choose_id_colours(ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return a colour for each id, uint8 [N, 3] RGB; successive ids differ."""
    if not len(ids):
        return np.zeros((0, 3), np.uint8)  # OpenCV does not convert empty arrays.
    hue = np.asarray(ids, np.float64) * _GOLDEN_RATIO % 1 * 180
    hsv = np.stack([hue, np.full_like(hue, 220), np.full_like(hue, 255)], axis=1)[:, None]
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)[:, 0], np.uint8)


def _arrange_views(rerun: Any, picture: Frame | None) -> Any:  # noqa: ANN401
    """Return the layout that the viewer opens with: the video above the curves."""
    blueprint, bounds = rerun.blueprint, None
    if picture is not None:
        # The estimates of points that left the picture would take most of the view.
        height, width = picture.shape[:2]
        bounds = blueprint.VisualBounds2D(x_range=(0, width), y_range=(0, height))
    curves = (
        blueprint.TimeSeriesView(origin=f"{OVER_TIME}/{name}", name=name.replace("_", " "))
        for name in (COUNT, CONFIDENCE)
    )
    return blueprint.Blueprint(
        blueprint.Vertical(
            blueprint.Spatial2DView(origin=PICTURES, name="video", visual_bounds=bounds),
            blueprint.Horizontal(*curves),
            row_shares=[4, 1],
        ),
        blueprint.TimePanel(timeline="time", state="collapsed"),
        blueprint.BlueprintPanel(state="collapsed"),
        blueprint.SelectionPanel(state="collapsed"),
    )


class _RecordingWriter:
    """Logs one frame after the other."""

    def __init__(self, rerun: Any, recording: Any, names: Mapping[int, str]) -> None:  # noqa: ANN401
        self._rerun, self._recording = rerun, recording
        self._names = names
        self._trails = _Trails()
        self._annotated: set[int] = set()

    def write(self, frame: ViewedFrame) -> None:
        """Log a frame at its number, its time and its stamp."""
        self._recording.set_time("frame", sequence=frame.number)
        self._recording.set_time("time", duration=frame.time)
        if frame.stamp is not None:
            self._recording.set_time("stamp", timestamp=np.datetime64(frame.stamp, "ns"))
        if frame.picture is not None:
            image = self._rerun.EncodedImage(
                contents=_encode_jpeg(frame.picture), media_type="image/jpeg"
            )
            self._log(PICTURES, image)
        if frame.mask is not None:
            self._write_mask(frame.mask)
        if frame.points is not None:
            self._write_points(frame.points)
        elif self._trails:
            # The viewer shows the latest value: points of another frame would stay.
            self._log(POINTS, self._rerun.Clear(recursive=True))
            self._log(TRAILS, self._rerun.Clear(recursive=False))

    def _write_mask(self, mask: NDArray[np.uint8]) -> None:
        found = set(np.unique(mask).tolist())
        if not found <= self._annotated:
            self._annotated |= found
            self._log(OBJECTS, self._describe_objects(), static=True)
        self._log(OBJECTS, self._rerun.SegmentationImage(mask, opacity=_MASK_OPACITY))

    def _describe_objects(self) -> Any:  # noqa: ANN401
        """Return the names and colours of the objects that there were so far."""
        colours = make_object_colours().tolist()
        return self._rerun.AnnotationContext(
            [
                (index, self._names.get(index, f"object {index}" if index else "background"), rgb)
                for index, rgb in enumerate(colours)
                if index in self._annotated
            ]
        )

    def _write_points(self, points: ViewedPoints) -> None:
        visible = np.asarray(points.visible, bool)
        for path, chosen in ((VISIBLE, visible), (INVISIBLE, ~visible)):
            ids, opacity = points.ids[chosen], _OPACITY[path]
            marks = self._rerun.Points2D(
                points.points[chosen],
                colors=_with_opacity(choose_id_colours(ids), opacity),
                radii=_RADIUS[path],
                labels=[str(number) for number in ids.tolist()],
                show_labels=False,
            )
            values = self._rerun.AnyValues(
                id=ids.astype(np.int64), confidence=points.confidence[chosen].astype(np.float32)
            )
            self._log(path, marks, values)
        ids, strips = self._trails.extend(points)
        colours = _with_opacity(choose_id_colours(ids), _TRAIL_OPACITY)
        self._log(TRAILS, self._rerun.LineStrips2D(strips, colors=colours))
        self._log_number(COUNT, int(visible.sum()))
        if visible.any():
            self._log_number(CONFIDENCE, float(np.median(points.confidence[visible])))

    def _log(self, path: str, *what: Any, static: bool = False) -> None:  # noqa: ANN401
        # Otherwise Rerun warns of an error, and leaves the value out.
        self._recording.log(path, *what, static=static, strict=True)

    def _log_number(self, name: str, value: float) -> None:
        self._log(f"{OVER_TIME}/{name}", self._rerun.Scalars(float(value)))


class _Trails:
    """The last positions of the points that are in the present frame."""

    def __init__(self) -> None:
        self._positions: dict[int, deque[tuple[float, float] | None]] = {}
        """By id, oldest first; None where the point was invisible."""

    def __bool__(self) -> bool:
        """Return whether there are points in the present frame."""
        return bool(self._positions)

    def extend(self, points: ViewedPoints) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        """Add the positions in a frame, and return the id and the positions of each strip."""
        ids = points.ids.tolist()
        known = self._positions
        self._positions = {n: known.get(n) or deque(maxlen=_TRAIL + 1) for n in ids}
        for number, (x, y), visible in zip(
            ids, points.points.tolist(), points.visible.tolist(), strict=True
        ):
            self._positions[number].append((x, y) if visible else None)
        found = [(number, strip) for number in ids for strip in self._list_strips(number)]
        return (
            np.array([number for number, _ in found], np.int64),
            [np.array(strip, np.float32) for _, strip in found],
        )

    def _list_strips(self, number: int) -> Iterator[list[tuple[float, float] | None]]:
        """Yield the runs of successive frames in which a point was visible."""
        for missing, run in groupby(self._positions[number], lambda position: position is None):
            strip = list(run)
            if not missing and len(strip) > 1:
                yield strip


def _with_opacity(colours: NDArray[np.uint8], opacity: int) -> NDArray[np.uint8]:
    return np.pad(colours, ((0, 0), (0, 1)), constant_values=opacity)


def _encode_jpeg(picture: Frame) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
