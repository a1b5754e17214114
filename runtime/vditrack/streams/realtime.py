"""Point tracking at a camera's rate with a model that may be slower.

The model describes the newest frame in its own thread, which then tracks the points into that
frame. Meanwhile optical flow carries the points from frame to frame. When the thread is done, the
correction is applied to their positions in the newest frame. Where latents share frames, the model
waits for the frames of the next latent, and takes the newest ones. If it describes several latents
at a time, each is encoded as soon as it is complete.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from vditrack.arrays import Bools, Floats, Frame, Grey, Ints
from vditrack.bundle.configuration import Matching, Streaming
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import SlidingWindow
from vditrack.input_checks.arrays import check_frame, check_points, validate_ids
from vditrack.points.array_tables import select_rows
from vditrack.points.factory import create_point_tracker
from vditrack.points.optical_flow import grey_levels
from vditrack.points.origin import Origin
from vditrack.stage_timing import stage
from vditrack.streams.corrections import TrackedFrame, apply_correction
from vditrack.streams.frame_clock import FrameClock
from vditrack.streams.live_points import LivePoints, NewPoints, add_new_points
from vditrack.streams.model_pace import ModelPace
from vditrack.streams.model_step import ModelStep
from vditrack.streams.recent_images import RecentImages


@dataclass(frozen=True)
class LiveUpdate:
    """The points of a live stream in the frame just pushed.

    Coordinates are (x, y) in pixels of that frame; (0, 0) is the upper-left corner of the
    upper-left pixel.
    """

    stamp: float
    """Stamp of the frame, in seconds."""
    ids: Ints
    """[N], ascending, stable for the life of a point."""
    points: Floats
    """[N, 2] (x, y); a guess where the point is invisible."""
    visible: Bools
    """[N] visibility."""
    confidence: Floats
    """[N] in [0, 1]; at least 0.5 exactly where the point is visible."""
    forward_backward_error: Floats
    """[N] forward-backward distance in model pixels (RMS over frames); inf where unknown."""
    age: Ints
    """[N] frames since the point was added."""
    seconds_since_model: Floats
    """[N] seconds since the frame in which the model last placed the point; 0 in that frame."""
    bridged: bool
    """Whether the model did not describe this frame: points are where optical flow leads."""


@dataclass(frozen=True)
class _Job:
    """A step of the model, and the frame that points are tracked into."""

    done: Future[None]
    frame: TrackedFrame | None
    """None if frames are only encoded."""


class LiveStream:
    """Tracks points in a live stream of frames, at the rate at which they come.

    If the model is slower than the camera, a push takes only as long as optical flow, a few
    milliseconds. If the model keeps up, a push waits for it and returns what `Stream.push` returns.
    Pushes up to the first map always wait: the first one, or a chunk's, if the model describes
    several latents at a time. Stamps are in seconds; changes of the frame size and of the clock are
    treated as in `Stream`.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        settings: Matching,
        streaming: Streaming,
        worker: Executor | None = None,
        first_id: int = 0,
    ) -> None:
        """Start a live stream.

        Args:
            extractor: the bundle's graphs.
            settings: of the point tracker.
            streaming: how the stream treats time, and frames that the model does not describe.
            worker: runs the model, in one thread; several streams may share one. By default the
                stream has a thread of its own.
            first_id: of the first point, so that ids may continue those of another stream.

        """
        self._extractor, self._settings = extractor, settings
        self._streaming, self._live = streaming, streaming.live
        flow_tracking = settings.flow_tracking
        self._camera = None if flow_tracking is None else flow_tracking.camera
        self._owned = worker is None
        self._worker = worker or ThreadPoolExecutor(1, thread_name_prefix="vditrack")
        self.next_id = first_id  # that the next point will have
        self._job: _Job | None = None
        self._pace = ModelPace(self._live)
        self.reset()

    def reset(self) -> None:
        """Drop all points and frames. Ids are not used again."""
        self._tracker = create_point_tracker(self._extractor.grid, self._settings, self._live)
        self._textureless: Ints = np.zeros(0, np.int64)
        self._points = LivePoints()
        self._forget_frames()

    def restart(self, kept: ArrayLike) -> Ints:
        """Start over after a jump of the clock, but keep the given points, as lost points.

        All frames and stamps are forgotten, as by `reset`; the next frame may have any stamp. This
        waits for the model if it is describing a frame. If it has not described some of the points
        yet, this lets it describe the last frame, and waits for that too. The kept points have
        their ids and their appearance, but no known position: they are invisible until they are
        found in a later frame by descriptor and patch, and remain so where the picture is another
        one. A point without texture of its own cannot be found again, nor can one that flow lost
        before the model described it, nor any if the model fails or the bundle does not search
        for lost points.

        Args:
            kept: ids of the points to keep.

        Returns:
            The ids [N] of the points that are kept.

        Raises:
            InputError: There is no point with one of the ids.

        """
        tracker, wanted = self._tracker, validate_ids(kept, self._points.ids)
        self._finish_job()
        waiting = np.concatenate([tracker.ids[tracker.undescribed], *(n.ids for n in self._new)])
        undescribed = np.isin(waiting, wanted).any()
        frame, image, stamp = self._frame, self._image, self._clock.stamp
        if undescribed and frame is not None and image is not None and stamp is not None:
            self._waiting += [frame] * (self._window.missing - len(self._waiting))
            self._start(frame, image, stamp, carried=True)
            self._finish_job()
        tracker.restart(np.isin(tracker.ids, wanted))
        self._points = self._points.select_lost(np.isin(self._points.ids, wanted))
        self._forget_frames()
        return self.ids

    def _finish_job(self) -> None:
        """Wait for the model if it is describing a frame, and ignore that it fails."""
        if self._job is not None and self._job.done.exception() is None:
            self._correct()
        self._job = None

    def _forget_frames(self) -> None:
        # The frame that the model is describing belongs to the past.
        self._job = None
        self._window = SlidingWindow(self._extractor)
        self._clock = FrameClock(self._streaming.interval_history)
        self._frame: Frame | None = None
        self._waiting: list[Frame] = []
        """Frames that the model has not seen, of the next latent."""
        self._tracked: float | None = None
        """Stamp of the last frame that the tracker has tracked points into."""
        self._image: Grey | None = None
        self._recent = RecentImages(self._live, self._camera)
        self._new: list[NewPoints] = []
        self._described: deque[float] = deque(maxlen=self._live.history)
        self._pace.forget_frames()

    def close(self) -> None:
        """Stop the stream's own thread, after the frame that the model is describing."""
        if self._owned:
            self._worker.shutdown(cancel_futures=True)

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def ids(self) -> Ints:
        """Ids [N] of the points, ascending."""
        return self._points.ids.copy()

    @property
    def described_rate(self) -> float | None:
        """Frames that the model describes per second; None before it has described two."""
        if len(self._described) < 2:
            return None
        return (len(self._described) - 1) / (self._described[-1] - self._described[0])

    def frame_size(self, stamp: float | None = None) -> tuple[int, int]:
        """Return (height, width) of the frame that `add` places points on.

        Args:
            stamp: of the frame in seconds; None for the last frame pushed.

        Raises:
            InputError: No frame was pushed yet, or `add` refuses the stamp.

        """
        if self._image is None:
            raise InputError("points were added before the first frame. Push a frame first.")
        height, width = self._image.shape
        return (height, width) if stamp is None else self._recent.size_at(stamp)

    def add(self, points: ArrayLike, stamp: float | None = None) -> Ints:
        """Add points on the last frame pushed or on an earlier one, and return their ids [N].

        Points on an earlier frame are carried to the last one by optical flow. Their appearance is
        read in the frame that they were marked on. One that flow loses on the way has an id too,
        and is invisible.

        Args:
            points: [N, 2] (x, y) in pixels of that frame.
            stamp: of that frame in seconds; None for the last frame pushed. Between two frames, the
                points are moved to the nearer one first.

        Raises:
            InputError: No frame was pushed yet, a point is not a finite position inside the frame,
                or the stamp is ahead of the last frame or older than the frames that are kept
                (`recent_seconds` of the bundle).

        """
        size, positions = self.frame_size(stamp), np.asarray(points, np.float32)
        check_points(positions, size)
        newest, image = self._clock.stamp, self._image
        assert newest is not None and image is not None
        ids = np.arange(self.next_id, self.next_id + len(positions), dtype=np.int64)
        origin, places, held = Origin(image, positions), positions, np.ones(len(ids), np.bool_)
        late = stamp is not None and stamp != newest and len(ids) > 0
        if late:
            with stage("flow"):
                carried = self._recent.carry(
                    positions, stamp or 0.0, self._tracker.find_textureless
                )
            origin, places, held = carried.origin, carried.places, carried.held
        self._points = self._points.add_points(ids, places, held, newest)
        self.next_id += len(ids)
        new = NewPoints(ids, origin)
        if not self._tracks(newest):
            self._new.append(new)
        elif late:
            new.add_to(self._tracker, ids[held], places[held])
            self._points.place(self._tracker, newest)
        else:
            self._tracker.add(ids, positions)
        if self._tracks(newest):
            self._textureless = self._tracker.ids[self._tracker.textureless]
        return ids

    def remove(self, ids: ArrayLike) -> None:
        """Stop tracking the points with the given ids.

        Raises:
            InputError: There is no point with one of the ids.

        """
        gone = validate_ids(ids, self._points.ids)
        self._points = select_rows(self._points, ~np.isin(self._points.ids, gone))
        if self._job is None:
            self._drop_removed()

    def push(self, frame: Frame, stamp: float) -> LiveUpdate:
        """Track all points into the next frame.

        Args:
            frame: uint8 [H, W, 3] RGB; it must not be written to afterwards.
            stamp: the frame's time in seconds, from the camera.

        Raises:
            InputError: The frame is not such an array, or its stamp is not a number or is older
                than the one before.
            BackendError: The model failed, in this frame or in one before.

        """
        began = perf_counter()
        check_frame(frame)
        before = self._clock.stamp
        if self._clock.advance(stamp) == 0:
            return self._update(stamp)
        if before is not None:
            self._pace.record_interval(stamp - before)
        image = grey_levels(frame)
        self._points.age += 1
        if self._job is not None and self._job.done.done():
            self._correct()
        complete = self._await_latent(frame)
        follows = before is None or self._tracks(before)
        waits = self._job is None and (follows or self._has_map)
        waits &= not self._described or self._pace.keeps_up()
        # Otherwise the tracker's own step begins where the points are, and flow is not needed.
        carries = not (waits and follows)
        if carries and self._image is not None:
            self._points.carry(self._image, image, self._textureless, self._live, self._camera)
        self._frame, self._image = frame, image
        self._recent.add(image, stamp)
        if waits or complete:
            self._start(frame, image, stamp, carried=carries)
        if waits:
            self._correct()
        self._pace.record_push(perf_counter() - began)
        return self._update(stamp)

    def _await_latent(self, frame: Frame) -> bool:
        """Collect the frames of the next latent; return whether the model can take it now."""
        is_free, stride = self._job is None, self._extractor.temporal_stride
        needed = self._window.missing_of_latent if is_free else stride
        self._waiting = [*self._waiting, frame][-needed:]
        return is_free and len(self._waiting) == needed

    @property
    def _has_map(self) -> bool:
        """Whether the waiting frames complete the next maps; no job may be running."""
        return len(self._waiting) == self._window.missing

    def _describes(self, stamp: float | None) -> bool:
        """Return whether the model described the frame of this stamp last."""
        return bool(self._described) and self._described[-1] == stamp

    def _tracks(self, stamp: float | None) -> bool:
        """Return whether the tracker has tracked the points into the frame of this stamp last."""
        return self._tracked is not None and self._tracked == stamp

    def _start(self, frame: Frame, image: Grey, stamp: float, *, carried: bool) -> None:
        interval, intervals = self._clock.usual_interval, 1.0
        if self._tracked is not None and interval:
            intervals = max(1.0, float(round((stamp - self._tracked) / interval)))
        has_map = self._has_map
        frames, self._waiting = tuple(self._waiting), []
        # The stream changes its points while the worker reads these.
        points = select_rows(self._points, np.arange(len(self._points.ids)))
        new = tuple(self._new)
        step = ModelStep(self._window, self._tracker, frames, points, new, intervals, carried)
        tracked = TrackedFrame(image, stamp, has_map, points.ids, points.places)
        done = self._worker.submit(step.run, self._pace)
        self._job = _Job(done, tracked if has_map or not carried else None)

    def _correct(self) -> None:
        """Wait for the model; if it has tracked the points into a frame, apply the correction."""
        job, self._job = self._job, None
        if job is None:
            return
        wait([job.done])
        self._drop_removed()
        job.done.result()
        frame = job.frame
        if frame is None:
            return
        self._tracked = frame.stamp
        if frame.has_map:
            self._described.append(frame.stamp)
        if self._image is not None:
            work = self._tracker, frame, self._image, self._recent, self._live
            apply_correction(self._points, *work)
            if frame.image is self._image:
                add_new_points(self._tracker, self._points, self._new, self._image.shape)
        self._textureless = self._tracker.ids[self._tracker.textureless]
        # One that flow has lost meanwhile cannot be described.
        ids = self._points.ids[self._points.visible]
        waiting = ids[~np.isin(ids, self._tracker.ids)]
        self._new = [new for new in self._new if np.isin(new.ids, waiting).any()]

    def _drop_removed(self) -> None:
        """Drop the points from the tracker that were removed from the stream."""
        self._tracker.keep(np.isin(self._tracker.ids, self._points.ids))

    def _update(self, stamp: float) -> LiveUpdate:
        points = self._points
        held = np.where(points.followed, 1, self._live.lost_confidence)
        return LiveUpdate(
            stamp=stamp,
            ids=points.ids.copy(),
            points=points.places.copy(),
            visible=points.visible,
            confidence=np.asarray(points.confidence * held, np.float32),
            forward_backward_error=points.forward_backward_error.copy(),
            age=points.age.copy(),
            seconds_since_model=np.asarray(stamp - points.placed, np.float32),
            bridged=not self._describes(stamp),
        )
