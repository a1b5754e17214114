"""Evaluates methods on clips, with one clip in memory at a time."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from vditrack.arrays import Floats, ImageSequence, Mask
from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import (
    DenseFlow,
    LucasKanade,
    Method,
    Patches,
    Still,
)
from vditrack.evaluation.lazy_images import gather_masks
from vditrack.evaluation.metrics.results import Result
from vditrack.evaluation.protocols import EvaluationProtocol
from vditrack.features.clip_frames import ArrayFrames, ClipFrames
from vditrack.points.clip_tracking import VideoMode
from vditrack.points.track_blocks import collect_tracks
from vditrack.points.tracks import Tracks
from vditrack.streams.mask_clips import propagate_in_stream
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.tracker import Tracker

BASELINES: dict[str, type[Method]] = {
    "klt": LucasKanade,
    "dis": DenseFlow,
    "patches": Patches,
    "still": Still,
}
"""Baselines by name."""
OURS = "ours"
"""Name of the bundled model."""
ABLATIONS = {"appearance": 0.0, "motion": 1.0}
"""Weights of the bundled model's motion features by the name of the ablation."""
WORST = 3
"""Number of clips of each method whose picture is kept."""


@dataclass(frozen=True)
class TrackerMethod:
    """The tracker of a bundle as a method that is evaluated."""

    tracker: Tracker
    mode: VideoMode = "offline"
    """``causal`` uses the frames up to the present alone, as a robot does."""

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """See `vditrack.evaluation.baselines.point_baselines.PointTracker`."""
        if isinstance(frames, np.ndarray):
            return self.tracker.track(frames, queries, mode=self.mode)
        blocks = self.tracker.track_video(_read_in_turn(frames), queries, mode=self.mode)
        return collect_tracks(blocks, queries, len(frames))

    def propagate(self, frames: ImageSequence, first: Mask, /) -> ImageSequence:
        """See `vditrack.evaluation.baselines.point_baselines.MaskPropagator`."""
        return _propagate(self.tracker, frames, first, self.mode)


@dataclass(frozen=True)
class _MasksOnly:
    """A tracker that propagates masks, but tracks no points."""

    tracker: Tracker
    mode: VideoMode

    def propagate(self, frames: ImageSequence, first: Mask, /) -> ImageSequence:
        """See `vditrack.evaluation.baselines.point_baselines.MaskPropagator`."""
        return _propagate(self.tracker, frames, first, self.mode)


def _propagate(
    tracker: Tracker, frames: ImageSequence, first: Mask, mode: VideoMode
) -> ImageSequence:
    if isinstance(frames, np.ndarray):
        return tracker.propagate(frames, first, mode=mode)
    if mode == "causal":
        masks = propagate_in_stream(tracker.mask_stream(), frames, {0: first})
    else:
        blocks = tracker.propagate_video(_read_in_turn(frames), first)
        masks = (mask for block in blocks for mask in block.masks)
    return gather_masks(masks, frames)


def _read_in_turn(frames: ImageSequence) -> ClipFrames:
    return ArrayFrames(frames, np.arange(len(frames), dtype=np.float64))


def open_method(
    name: str,
    load: Callable[..., Tracker] = Tracker.load,
    *,
    backend: str = "auto",
    mode: VideoMode = "offline",
) -> Method:
    """Return the method with a name.

    Args:
        name: ``ours``, an ablation of it, a baseline, or the folder of a bundle.
        load: Loads the tracker of a bundle in a folder, given as `Tracker.load` takes it.
        backend: What runs the model, as `Tracker.load` takes it; baselines run on the CPU.
        mode: How a bundle tracks and propagates; baselines use no frames ahead in either.

    Raises:
        InputError: There is no such method, or the bundled model propagates no masks.
        BundleError: The bundle does not load.
        BackendError: The backend does not work on this machine.

    """
    if name in BASELINES:
        return BASELINES[name]()
    if name == OURS:
        return TrackerMethod(Tracker.load(backend=backend), mode)
    if name in ABLATIONS:
        whole = Tracker.load(backend=backend).propagation
        ablated = msgspec.structs.replace(whole, motion_weight=ABLATIONS[name])
        return _MasksOnly(Tracker.load(backend=backend, propagation=ablated), mode)
    if Path(name).is_dir():
        return TrackerMethod(load(name, backend=backend), mode)
    named = ", ".join((OURS, *ABLATIONS, *BASELINES))
    raise InputError(
        f"there is no method {name!r}. Give one of {named}, or the folder of a bundle."
    )


def evaluate(
    clips: Iterable[AnnotatedClip],
    methods: Mapping[str, Method],
    protocol: EvaluationProtocol,
    report: Callable[[str, str], None],
) -> list[Result]:
    """Score every method on every clip, and keep the pictures of each method's worst clips.

    Args:
        clips: Clips, read one at a time.
        methods: Trackers or propagators by name.
        protocol: The protocol, which queries the methods and scores their results.
        report: Called with the names of clip and method before each run.

    Raises:
        InputError: A clip cannot be read, or a method does not support the protocol.

    """
    results: dict[str, list[Result]] = {name: [] for name in methods}
    for clip in clips:
        for name, method in methods.items():
            report(clip.name, name)
            results[name].append(protocol.run(clip, name, method))
            results[name] = _drop_pictures(results[name], protocol.metrics[0])
    return [result for of_method in results.values() for result in of_method]


def _drop_pictures(results: list[Result], headline: str) -> list[Result]:
    """Return the results with the pictures of the worst clips only."""
    shown = [result for result in results if result.picture is not None]
    worst = sorted(shown, key=lambda result: _nan_last(result.metrics[headline]))
    dropped = {id(result) for result in worst[WORST:]}
    return [replace(r, picture=None) if id(r) in dropped else r for r in results]


def _nan_last(score: float) -> float:
    """Return a sort key that puts NaN last: an undefined score is not the worst."""
    return math.inf if math.isnan(score) else score
