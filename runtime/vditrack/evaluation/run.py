"""Evaluates methods on clips, with one clip in memory at a time."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

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
class _MasksOnly:
    """A tracker that propagates masks, but tracks no points."""

    tracker: Tracker

    def propagate(
        self, frames: NDArray[np.uint8], first: NDArray[np.uint8], /
    ) -> NDArray[np.uint8]:
        """See `vditrack.evaluation.baselines.point_baselines.MaskPropagator`."""
        return self.tracker.propagate(frames, first)


def open_method(name: str, load: Callable[..., Tracker] = Tracker.load) -> Method:
    """Return the method with a name.

    Args:
        name: ``ours``, an ablation of it, a baseline, or the folder of a bundle.
        load: Loads the tracker of a bundle in a folder, given as `Tracker.load` takes it.

    Raises:
        InputError: There is no such method, or the bundled model propagates no masks.
        BundleError: The bundle does not load.

    """
    if name in BASELINES:
        return BASELINES[name]()
    if name == OURS:
        return Tracker.load()
    if name in ABLATIONS:
        whole = Tracker.load().propagation
        ablated = msgspec.structs.replace(whole, motion_weight=ABLATIONS[name])
        return _MasksOnly(Tracker.load(propagation=ablated))
    if Path(name).is_dir():
        return load(name)
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
