"""Point tracking in a live stream: causal, with constant memory and constant work a frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.bundle.configuration import Matching, Streaming
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import SlidingWindow
from vditrack.input_checks.arrays import check_frame, validate_ids
from vditrack.points.factory import create_point_tracker
from vditrack.streams.frame_clock import FrameClock


@dataclass(frozen=True)
class StreamUpdate:
    """The points of a stream in the frame just pushed.

    Coordinates are (x, y) in pixels of that frame; (0, 0) is the upper-left corner of the
    upper-left pixel.
    """

    stamp: float
    """Stamp of the frame, in seconds."""
    ids: NDArray[np.int64]
    """[N], stable for the life of a point."""
    points: NDArray[np.float32]
    """[N, 2] (x, y); a guess where the point is invisible."""
    visible: NDArray[np.bool_]
    """[N] visibility."""
    confidence: NDArray[np.float32]
    """[N] in [0, 1]; at least 0.5 exactly where the point is visible."""
    forward_backward_error: NDArray[np.float32]
    """[N] forward-backward distance in model pixels (RMS over frames); inf where unknown."""
    age: NDArray[np.int64]
    """[N] frames since the point was added."""


class Stream:
    """Tracks points in a live stream of frames.

    The work and the memory of a push depend on the number of points and on the bundle's window and
    horizon, not on how long the stream has run.

    - A frame with the stamp of the one before is the same frame: nothing changes.
    - A frame with an older stamp is an error; `reset` starts over after a jump of the clock.
    - After dropped frames (the interval is a multiple of the usual one), searches are as many times
      wider.
    - If the frame size changes, points keep their relative position.
    """

    def __init__(
        self, extractor: FeatureExtractor, settings: Matching, streaming: Streaming
    ) -> None:
        """Start a live stream.

        Args:
            extractor: the bundle's graphs.
            settings: of the point tracker.
            streaming: how the stream treats time.

        """
        self._extractor = extractor
        self._settings, self._streaming = settings, streaming
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Drop all points and frames. Ids are not used again."""
        self._window = SlidingWindow(self._extractor)
        self._tracker = create_point_tracker(
            self._extractor.grid, self._settings, self._streaming.live
        )
        self._clock = FrameClock(self._streaming.interval_history)

    def add(self, points: ArrayLike) -> NDArray[np.int64]:
        """Add points on the last frame pushed, and return their ids [N].

        Args:
            points: [N, 2] (x, y) in pixels of that frame.

        Raises:
            InputError: No frame was pushed yet, or a point is not a finite position inside it.

        """
        positions = np.asarray(points, np.float32)
        count = len(positions) if positions.ndim else 0
        ids = np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        self._tracker.add(ids, positions)
        self._next_id += count
        return ids

    def remove(self, ids: ArrayLike) -> None:
        """Stop tracking the points with the given ids.

        Raises:
            InputError: There is no point with one of the ids.

        """
        gone = validate_ids(ids, self._tracker.ids)
        self._tracker.keep(~np.isin(self._tracker.ids, gone))

    def push(self, frame: NDArray[np.uint8], stamp: float) -> StreamUpdate:
        """Track all points into the next frame.

        Args:
            frame: uint8 [H, W, 3] RGB.
            stamp: the frame's time, in seconds, of any epoch.

        Raises:
            InputError: The frame is not such an array, or its stamp is not a number or is older
                than the one before.

        """
        check_frame(frame)
        intervals = self._clock.advance(stamp)
        if intervals > 0:
            maps = self._window.push(frame)
            self._tracker.advance(maps[-1] if maps else None, frame, intervals)
        return self._update(stamp)

    def _update(self, stamp: float) -> StreamUpdate:
        tracker = self._tracker
        return StreamUpdate(
            stamp=stamp,
            ids=tracker.ids.copy(),
            points=tracker.points,
            visible=tracker.visible,
            confidence=tracker.confidence.copy(),
            forward_backward_error=tracker.forward_backward_error.copy(),
            age=tracker.age.copy(),
        )
