"""The tracker: a bundle that is loaded once, for clips and for streams."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from vditrack.acceptance import verify_tracks
from vditrack.arrays import FrameClip, MaskClip, Masks
from vditrack.bundle.configuration import Matching, Propagation, Streaming
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.errors import InputError
from vditrack.features.clip_frames import ArrayFrames, ClipFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.fusion import FusedFeatures
from vditrack.inference.selection import CPU, Backend, open_backend
from vditrack.input_checks.arrays import check_clip, validate_masks, validate_queries
from vditrack.masks.clip_propagation import ClipPropagation
from vditrack.points.clip_tracking import (
    Checkpoint,
    ClipTracking,
    Progress,
    TrackedClip,
    TrackMode,
    VideoMode,
    check_video_mode,
    read_steps,
    track_clip,
)
from vditrack.points.factory import create_point_tracker
from vditrack.points.feature_renewal import FeatureRenewal, RenewedFeatures
from vditrack.points.heft_reference import track_reference
from vditrack.points.tracks import Tracks
from vditrack.streams.frame_clock import measure_intervals
from vditrack.streams.mask_clips import propagate_in_stream
from vditrack.streams.mask_stream import MaskStream
from vditrack.streams.point_stream import Stream
from vditrack.streams.realtime import LiveStream

PropagateMode = Literal["offline", "causal"]
"""How masks are propagated through a clip: with windows that look ahead, or as in a stream."""
_KEPT_BYTES = 1 << 27
"""Memory for feature maps of a video that the pass backward needs again."""


class Tracker:
    """Tracks any point, and propagates masks of objects, with the features of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend = CPU,
        settings: Matching | None = None,
        *,
        propagation: Propagation | None = None,
        streaming: Streaming | None = None,
    ) -> None:
        """Load the bundle's graphs; those for masks are loaded when they are first used.

        Args:
            bundle: a checked bundle.
            backend: runs the graphs of the bundle and of the bundles within it.
            settings: replace the bundle's settings for points.
            propagation: replaces the bundle's settings for masks.
            streaming: replaces the bundle's settings for live streams.

        Raises:
            BackendError: No inference engine is installed, or it refuses a graph.
            BundleError: A graph does not have the inputs and outputs that the manifest claims.

        """
        self.bundle = bundle
        self.backend = backend
        """What runs the graphs, and which backends were tried before it and why they failed."""
        self.settings = settings or bundle.manifest.matching
        self.streaming = streaming or bundle.manifest.streaming
        self._extractor = FeatureExtractor(bundle, backend.open_graph)
        self._propagation = propagation

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        backend: str = "auto",
        *,
        propagation: Propagation | None = None,
        threads: int = 0,
        require_signature: Path | str | None = None,
        verify_files: bool = False,
        allow_host_code: bool = False,
    ) -> Tracker:
        """Load the bundle at ``path``, or the model that comes with the package.

        The first time that an engine is loaded on a GPU, or INT8 graphs on a CPU, their tracks are
        compared with the bundle's (`vditrack.acceptance`). They are used only if they agree.

        Args:
            path: folder of a bundle; None for the bundled model.
            backend: "auto" takes the fastest backend that works on this machine. Any other name of
                `vditrack.inference.selection.BackendName` is used or refused. With ":N" the model
                runs on GPU N, as CUDA counts: "auto:1" then takes no CPU.
            propagation: replaces the bundle's settings for masks.
            threads: threads that run a graph on the CPU; 0 for one on each core.
            require_signature: file of the public key that the bundle and its engines have to be
                signed with; None to accept unsigned ones.
            verify_files: whether to compute the digests of large files that did not change since
                the last time; always so with a required signature.
            allow_host_code: whether engines may bring code for the CPU, as version compatible ones
                do. It runs with the rights of this process.

        Raises:
            BundleError: The bundle is missing, damaged, not signed with the required key, or of an
                unknown version.
            BackendError: No inference engine is installed, it refuses the model, or the backend
                named does not work on this machine.
            InputError: There is no backend of that name, or the key cannot be read.

        """
        bundle = load_bundle(
            bundled_model() if path is None else path,
            require_signature=require_signature,
            verify_files=verify_files,
            allow_host_code=allow_host_code,
        )
        opened = open_backend(bundle, backend, verify_tracks, threads)
        return cls(bundle, opened, propagation=propagation)

    def stream(self) -> Stream:
        """Start a live stream of points. Streams of one tracker are independent of each other."""
        return Stream(self._extractor, self.settings, self.streaming)

    def live(self, worker: Executor | None = None, first_id: int = 0) -> LiveStream:
        """Start a live stream of points that keeps the camera's rate with a slower model.

        Args:
            worker: runs the model, in one thread; several streams may share one.
            first_id: of the first point.

        """
        return LiveStream(self._extractor, self.settings, self.streaming, worker, first_id)

    def mask_stream(self, threads: int | None = None) -> MaskStream:
        """Start a live stream of object masks. Streams are independent of each other.

        Args:
            threads: most threads that propagate labels; None for one on each core. Half of the
                cores is faster where the CPU runs the networks meanwhile (`MaskStream.describe`).

        Raises:
            InputError: The bundle has no features for masks.

        """
        return MaskStream(self._fused, self.streaming, threads)

    def track(
        self,
        frames: FrameClip,
        queries: ArrayLike,
        *,
        mode: TrackMode = "offline",
        times: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Tracks:
        """Track points through a whole clip, forward and backward from each query.

        Args:
            frames: uint8 [T, H, W, 3] RGB.
            queries: [N, 3] (t, x, y): a frame's index and a position in its pixels; (0, 0) is the
                upper-left corner of the upper-left pixel.
            mode: "offline" reads features from windows that also look ahead. "causal" gives what
                `stream` would have given. "reference" tracks as HeFT does (arXiv 2512.04619), chunk
                by chunk and from the query forward only, to reproduce the paper.
            times: [T] times of the frames in seconds, ascending. Where frames are missing,
                searches are as many times wider, as in `stream`. By default no frame is missing.
                "reference" does not use them.
            progress: called with (steps done, steps in all).

        Returns:
            Tracks over all T frames. Each depends on its own query alone.

        Raises:
            InputError: The frames, queries or times are no such arrays, a query lies outside the
                clip, or there is no such mode.

        See Also:
            `track_video`, for clips that do not fit into memory.

        """
        history = self.streaming.interval_history
        intervals = None if times is None else measure_intervals(times, len(frames), history)
        return track_clip(
            self._extractor,
            frames,
            queries,
            self.settings,
            self.streaming.live,
            mode,
            intervals,
            progress,
        )

    def track_video(
        self,
        source: ClipFrames,
        queries: ArrayLike,
        *,
        mode: VideoMode = "offline",
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> ClipTracking:
        """Track points through a video of any length, with memory that does not grow with it.

        The result is an iterator of `TrackBlock`. The blocks from the first frame to the last come
        first; they know each point from its query on. If there are queries after frame 0, the
        blocks from the last query back to frame 0 follow; they know each point up to its query.
        What a block knows is final, and equal to what `track` returns for the frames and the times
        of the source.

        Args:
            source: frames and times, from `vditrack.io.frame_source.open_source`.
            queries: [N, 3] (t, x, y): a frame's index and a position in its pixels.
            mode: "offline" or "causal", as in `track`.
            progress: called with (steps done, steps in all).
            checkpoint: what ``checkpoint()`` of an earlier iterator of the same bundle, source,
                queries and mode returned after one of its blocks: the blocks after it follow.

        Raises:
            InputError: The queries are no such array, one lies outside the video, or there is no
                such mode; while the blocks are read, the source has changed.

        """
        check_video_mode(mode)
        history, count = self.streaming.interval_history, len(source)
        clip = TrackedClip(
            source,
            validate_queries(queries, count, source.size),
            measure_intervals(source.times, count, history),
        )
        tracking = ClipTracking(
            self._extractor,
            clip,
            (self.settings, self.streaming.live),
            mode,
            kept_bytes=_KEPT_BYTES,
            progress=progress,
        )
        if checkpoint is not None:
            tracking.resume(checkpoint)
        return tracking

    def track_features(
        self,
        source: ClipFrames,
        renewal: FeatureRenewal,
        *,
        mode: VideoMode = "offline",
        progress: Progress | None = None,
    ) -> RenewedFeatures:
        """Track corners through a video of any length, and find new ones as they are lost.

        The result is an iterator of the points of each frame. `collect_ragged` joins them. Each
        point is tracked as `track` does from the frame on in which it was found.

        Args:
            source: frames and times, from `vditrack.io.frame_source.open_source`.
            renewal: how many corners are tracked, and when they are replaced.
            mode: "offline" or "causal", as in `track`.
            progress: called with (frames done, frames in all).

        Raises:
            InputError: There is no such mode; while the points are read, the source has changed.

        """
        check_video_mode(mode)
        steps = read_steps(self._extractor, source, 0, causal=mode == "causal")
        points = create_point_tracker(self._extractor.grid, self.settings, self.streaming.live)
        intervals = measure_intervals(source.times, len(source), self.streaming.interval_history)
        return RenewedFeatures(steps, points, (source.times, intervals), renewal, progress)

    def track_reference(
        self, source: ClipFrames, queries: ArrayLike, *, progress: Progress | None = None
    ) -> Tracks:
        """Track points through a video as HeFT does, with the frames of one chunk in memory.

        The tracks are those of `track` with the mode "reference". Unlike those of `track_video`
        they are in memory.

        Args:
            source: frames, from `vditrack.io.frame_source.open_source`.
            queries: [N, 3] (t, x, y): a frame's index and a position in its pixels.
            progress: called with (frames tracked, frames in all) after each chunk.

        Raises:
            InputError: The queries are no such array, one lies outside the video, or the source
                has changed while it was read.

        """
        checked = validate_queries(queries, len(source), source.size)
        return track_reference(self._extractor, source, checked, self.settings, progress)

    def propagate(
        self,
        frames: FrameClip,
        masks: Masks,
        *,
        mode: PropagateMode = "offline",
        progress: Progress | None = None,
    ) -> MaskClip:
        """Propagate object masks through a whole clip, forward from the frames they are given for.

        An object that a later mask names moves to where that mask has it. The other objects stay
        where they are, except for the pixels that the mask takes.

        Args:
            frames: uint8 [T, H, W, 3] RGB.
            masks: the mask of frame 0, uint8 [H, W]: the index of the object at each pixel, 0 for
                the background. Or masks by their frames, for objects that enter later. Indices may
                have gaps.
            mode: "offline" reads features from windows that also look ahead. "causal" gives what
                `mask_stream` would have given.
            progress: called with (frames done, frames in all).

        Returns:
            uint8 [T, H, W] of the same indices; background before the first mask.

        Raises:
            InputError: The bundle has no features for masks, the frames are no such array, a mask
                does not fit its frame, or there is no such mode.

        See Also:
            `propagate_video`, for clips that do not fit into memory.

        """
        if mode not in get_args(PropagateMode):
            known = ", ".join(get_args(PropagateMode))
            raise InputError(f"there is no mode {mode!r}. Give one of {known}.")
        check_clip(frames)
        propagated = np.zeros(frames.shape[:3], np.uint8)
        if mode == "causal":
            given = validate_masks(masks, len(frames), frames.shape[1:3])
            for t, mask in enumerate(propagate_in_stream(self.mask_stream(), frames, given)):
                propagated[t] = mask
                if progress is not None:
                    progress(t + 1, len(frames))
            return propagated
        source = ArrayFrames(frames, np.arange(len(frames), dtype=np.float64))
        for block in self.propagate_video(source, masks, progress=progress):
            propagated[block.frames] = block.masks
        return propagated

    def propagate_video(
        self,
        source: ClipFrames,
        masks: Masks,
        *,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> ClipPropagation:
        """Propagate masks through a video of any length, with memory that does not grow with it.

        The result is an iterator of `MaskBlock`, from the first frame to the last. Its masks are
        equal to what `propagate` returns for the frames of the source.

        Args:
            source: frames, from `vditrack.io.frame_source.open_source`.
            masks: as in `propagate`.
            progress: called with (frames done, frames in all).
            checkpoint: what ``checkpoint()`` of an earlier iterator of the same bundle, source and
                masks returned after one of its blocks: the blocks after it follow.

        Raises:
            InputError: The bundle has no features for masks, or a mask does not fit its frame;
                while the blocks are read, the source has changed.

        """
        fused, given = self._fused, validate_masks(masks, len(source), source.size)
        propagation = ClipPropagation(fused, source, given, progress)
        if checkpoint is not None:
            propagation.resume(checkpoint)
        return propagation

    @property
    def propagation(self) -> Propagation:
        """Settings for masks.

        Raises:
            InputError: The bundle has no features for masks.

        """
        return self._fused.settings

    @cached_property
    def _fused(self) -> FusedFeatures:
        return FusedFeatures(self.bundle, self.backend.open_graph, self._propagation)
