"""All methods on all clips, one clip in memory at a time."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import (
    DenseFlow,
    LucasKanade,
    Method,
    Patches,
    Still,
)
from vditrack.evaluation.metrics.results import Result
from vditrack.evaluation.protocols import EvaluationProtocol
from vditrack.tracker import Tracker

BASELINES: dict[str, type[Method]] = {
    "klt": LucasKanade,
    "dis": DenseFlow,
    "patches": Patches,
    "still": Still,
}
OURS = "ours"
ABLATIONS = {"appearance": 0.0, "motion": 1.0}
"""Our own bundle's masks with this weight of its motion features."""
WORST = 3
"""Clips of each method whose picture is kept."""


@dataclass(frozen=True)
class _MasksAlone:
    """A tracker that is asked for masks, and would track the points of another method."""

    tracker: Tracker

    def propagate(
        self, frames: NDArray[np.uint8], first: NDArray[np.uint8], /
    ) -> NDArray[np.uint8]:
        """See `vditrack.evaluation.baselines.point_baselines.MaskPropagator`."""
        return self.tracker.propagate(frames, first)


def open_method(name: str) -> Method:
    """Make the method of a name: ``ours``, an ablation of it, a peer's, or a bundle's folder.

    Raises:
        InputError: nothing of that name, or the bundled model has nothing to leave out.
        BundleError: the bundle does not load.

    """
    if name in BASELINES:
        return BASELINES[name]()
    if name == OURS:
        return Tracker.load()
    if name in ABLATIONS:
        whole = Tracker.load().propagation
        asked = msgspec.structs.replace(whole, motion_weight=ABLATIONS[name])
        return _MasksAlone(Tracker.load(propagation=asked))
    if Path(name).is_dir():
        return Tracker.load(name)
    named = ", ".join((OURS, *ABLATIONS, *BASELINES))
    raise InputError(f"no method {name!r}: there are {named}, and the folder of any bundle.")


def evaluate(
    clips: Iterable[AnnotatedClip],
    methods: Mapping[str, Method],
    protocol: EvaluationProtocol,
    report: Callable[[str, str], None],
) -> list[Result]:
    """Score every method on every clip; pictures are kept of each method's worst clips.

    Args:
        clips: read one at a time.
        methods: trackers or propagators by name.
        protocol: what is asked and how it is scored.
        report: called with the names of clip and method as each of them begins.

    Raises:
        InputError: a clip cannot be read, or a method cannot do what the protocol asks.

    """
    results: dict[str, list[Result]] = {name: [] for name in methods}
    for clip in clips:
        for name, method in methods.items():
            report(clip.name, name)
            results[name].append(protocol.run(clip, name, method))
            results[name] = _without_pictures(results[name], protocol.metrics[0])
    return [result for of_method in results.values() for result in of_method]


def _without_pictures(results: list[Result], headline: str) -> list[Result]:
    """Drop the pictures of all but the worst clips."""
    shown = [result for result in results if result.picture is not None]
    worst = sorted(shown, key=lambda result: _nan_last(result.metrics[headline]))
    dropped = {id(result) for result in worst[WORST:]}
    return [replace(r, picture=None) if id(r) in dropped else r for r in results]


def _nan_last(score: float) -> float:
    """A clip that does not define the metric is not the worst one."""
    return math.inf if math.isnan(score) else score
