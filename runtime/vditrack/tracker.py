"""The tracker: a bundle loaded once, for clips and for streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.acceptance import unrefined, verification
from vditrack.arrays import Masks
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.bundle.manifest import Matching, Propagation
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.fusion import FusedFeatures
from vditrack.features.windows import causal_features, clip_features
from vditrack.inference.engine_identity import Verification
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.selection import Backend, open_backend
from vditrack.inference.session import OpenGraph, Session
from vditrack.input_checks import (
    check_clip,
    checked_masks,
    checked_queries,
)
from vditrack.masks.objects import MaskedObjects
from vditrack.points.heft_reference import track_reference
from vditrack.points.tracks import Tracks
from vditrack.streams.mask_stream import MaskStream
from vditrack.streams.point_stream import Stream, no_points
from vditrack.streams.realtime import LiveStream

Progress = Callable[[int, int], None]
Step = TypeVar("Step")


class Tracker:
    """Tracks any point, and propagates masks of objects, with the features of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        settings: Matching | None = None,
        open_graph: OpenGraph = open_session,
        *,
        propagation: Propagation | None = None,
    ) -> None:
        """Load a checked bundle's graphs; those that propagate masks at the first use.

        Args:
            bundle: of the model.
            settings: in the place of its matching defaults.
            open_graph: loads each of its graphs.
            propagation: in the place of its settings for masks.

        """
        self.bundle = bundle
        self.settings = settings or bundle.manifest.matching
        self.backend = Backend("cpu" if open_graph is open_session else "own", open_graph)
        """What runs the graphs: its name, and what was tried before it and why it was not taken."""
        self._extractor = FeatureExtractor(bundle, open_graph)
        self._asked_propagation = propagation
        self._open_part = open_graph

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        backend: str = "auto",
        *,
        propagation: Propagation | None = None,
    ) -> Tracker:
        """Load the bundle at ``path``, or the model that comes with the package.

        The first time that an engine is loaded on a GPU, its tracks are compared with the bundle's
        (`vditrack.acceptance`), and it is taken only if they agree.

        Args:
            path: folder of a bundle.
            backend: "auto" takes the best that works here and falls back; one of
                `vditrack.inference.selection.BackendName` is taken or refused.
            propagation: in the place of the bundle's settings for masks.

        Raises:
            BundleError: the bundle is missing, damaged, or not of this version.
            BackendError: no inference engine is installed, it refuses the model, or the backend
                named does not work here.
            InputError: there is no backend of that name.

        """
        bundle = load_bundle(bundled_model() if path is None else path)
        chosen = open_backend(bundle, backend, verify_tracks)
        tracker = cls(bundle, open_graph=chosen.open_graph, propagation=propagation)
        tracker.backend = chosen
        tracker._open_part = _on_backend(backend)
        return tracker

    def stream(self) -> Stream:
        """Start on a live stream. Streams of one tracker are independent of each other."""
        return Stream(self._extractor, self.settings)

    def live(self, worker: Executor | None = None) -> LiveStream:
        """Start on a live stream that keeps the camera's pace where the model does not.

        Args:
            worker: runs the model, in one thread; give one to several streams for them to share.

        """
        return LiveStream(self._extractor, self.settings, worker)

    def mask_stream(self) -> MaskStream:
        """Start on masks of objects in a live stream; streams are independent of each other.

        Raises:
            InputError: the bundle has no features that propagate masks.

        """
        return MaskStream(self._fused)

    def propagate(
        self,
        frames: NDArray[np.uint8],
        masks: Masks,
        *,
        causal: bool = False,
        progress: Progress | None = None,
    ) -> NDArray[np.uint8]:
        """Carry masks of objects through a whole clip, forward from where they are marked.

        An object that a later mask names is from there on where that mask has it. The others stay
        where they are, but for the pixels that it takes.

        Args:
            frames: uint8 [T, H, W, 3] RGB.
            masks: of frame 0, uint8 [H, W]: the index of the object at each pixel, 0 for the
                background; or masks by their frames, for objects that enter later. Indices may
                have gaps.
            causal: read each frame's features from the windows that end with it, as a stream must,
                in place of windows that also look ahead: gives what `mask_stream` would have given.
            progress: called with (frames done, frames in all).

        Returns:
            uint8 [T, H, W] of the same indices; background before the first mask.

        Raises:
            InputError: the bundle has no features that propagate masks, frames are not such an
                array, or a mask is none for its frame.

        """
        fused = self._fused
        check_clip(frames)
        marks = checked_masks(masks, frames)
        carried = np.zeros(frames.shape[:3], np.uint8)
        objects = MaskedObjects(fused.settings)
        features = map(fused.window().push, frames) if causal else fused.clip(frames)
        counted = _Counter(len(frames), progress).counted(enumerate(features))
        for t, described in counted:
            objects.advance(described.descriptors, frames.shape[1:3], described.velocity)
            if t in marks:
                objects.add_masks(marks[t])
            carried[t] = objects.mask
        return carried

    @property
    def propagation(self) -> Propagation:
        """Settings by which masks are propagated.

        Raises:
            InputError: the bundle has no features that propagate masks.

        """
        return self._fused.settings

    @cached_property
    def _fused(self) -> FusedFeatures:
        return FusedFeatures(self.bundle, self._open_part, self._asked_propagation)

    def track(
        self,
        frames: NDArray[np.uint8],
        queries: ArrayLike,
        *,
        causal: bool = False,
        reference: bool = False,
        progress: Progress | None = None,
    ) -> Tracks:
        """Track points through a whole clip, forward and backward from where they are asked for.

        Args:
            frames: uint8 [T, H, W, 3] RGB.
            queries: [N, 3] (t, x, y): a frame's index and a position in its pixels, (0, 0) being
                the upper-left corner of the upper-left pixel.
            causal: read each frame's features from the window that ends with it, as a stream must,
                in place of windows that also look ahead: gives what `stream` would have given.
            reference: track as HeFT does, chunk by chunk and from the query onward only, with the
                settings' radii, visibility threshold and template update; to reproduce the paper.
            progress: called with (steps done, steps in all).

        Returns:
            Tracks over all T frames. Each depends on its own query alone.

        Raises:
            InputError: frames or queries are not such arrays, a query lies outside the clip, or
                both ``causal`` and ``reference`` are asked for.

        """
        check_clip(frames)
        asked = checked_queries(queries, frames)
        if reference:
            if causal:
                raise InputError(
                    "reference windows look ahead. Give causal or reference, not both."
                )
            return track_reference(self._extractor, frames, asked, self.settings, progress)
        tracks = _empty_tracks(asked, len(frames))
        last = int(asked[:, 0].max(initial=0))
        report = _Counter(len(frames) + (last + 1 if last else 0), progress)
        maps: list[FeatureMap] = []
        source = causal_features if causal else clip_features
        forward = enumerate(_kept(source(self._extractor, frames), maps, needed=last + 1))
        self._follow(tracks, frames, report.counted(forward))
        if last > 0:
            # Points asked for later in the clip are followed back to its start as well.
            backward = ((frame, maps[frame]) for frame in range(last, -1, -1))
            self._follow(tracks, frames, report.counted(backward))
        return tracks

    def _follow(
        self,
        tracks: Tracks,
        frames: NDArray[np.uint8],
        steps: Iterable[tuple[int, FeatureMap]],
    ) -> None:
        """Follow every point from its query in the order of the steps, writing into ``tracks``."""
        alive = no_points(self._extractor.grid, self.settings)
        for frame, features in steps:
            alive.advance(features, frames[frame])
            starting = np.flatnonzero(tracks.queries[:, 0] == frame)
            if len(starting):
                alive.add(starting, tracks.queries[starting, 1:])
            tracks.points[alive.ids, frame] = alive.points
            tracks.visible[alive.ids, frame] = alive.visible
            tracks.confidence[alive.ids, frame] = alive.confidence
            tracks.forward_backward_error[alive.ids, frame] = alive.forward_backward_error


def verify_tracks(bundle: Bundle, open_graph: OpenGraph, where: str) -> Verification:
    """Compare the tracks that graphs give with a bundle's own: see `vditrack.acceptance`.

    Args:
        bundle: whose graphs they are.
        open_graph: loads each of the graphs.
        where: GPU that they run on.

    Raises:
        BundleError: it has no tracks of the gate's clips.

    """
    tracker = Tracker(bundle, unrefined(bundle.manifest.matching), open_graph)
    return verification(bundle, tracker.track, where)


def _on_backend(name: str) -> OpenGraph:
    """Load graphs of bundles within a bundle: what runs the outer one's may know of no other."""

    @cache
    def opened(root: Path) -> OpenGraph:
        return open_backend(load_bundle(root), name, verify_tracks).open_graph

    def open_graph(graph: Path) -> Session:
        return opened(graph.parent)(graph)

    return open_graph


class _Counter:
    """Tells a progress callback how many of the steps are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def counted(self, steps: Iterable[Step]) -> Iterator[Step]:
        for step in steps:
            yield step
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


def _kept(
    features: Iterable[FeatureMap], kept: list[FeatureMap], needed: int
) -> Iterator[FeatureMap]:
    """Pass features on, and keep as many as the way back needs."""
    for features_of_frame in features:
        if needed > 1 and len(kept) < needed:
            kept.append(features_of_frame)
        yield features_of_frame


def _empty_tracks(queries: NDArray[np.float32], frames: int) -> Tracks:
    shape = (len(queries), frames)
    return Tracks(
        queries=queries,
        points=np.zeros((*shape, 2), np.float32),
        visible=np.zeros(shape, np.bool_),
        confidence=np.zeros(shape, np.float32),
        forward_backward_error=np.full(shape, np.inf, np.float32),
    )
