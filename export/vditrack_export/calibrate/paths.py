"""Fits the weights that choose paths, on clips with known tracks.

The weights of a linear-chain conditional random field maximise the likelihood of the true paths
(Lafferty, McCallum and Pereira, ICML 2001): the gradient is the difference between the evidence
that is expected given the truth, and that expected without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from vditrack.arrays import Bools, Doubles, Floats
from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.bundle.path_choice import PathChoice
from vditrack.coordinates import pixel_unit
from vditrack.errors import InputError
from vditrack.points.block_paths import PathChooser, make_reader
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.gap_filling import GapFiller
from vditrack.points.optical_flow import grey_levels
from vditrack.points.path_choice import PathEvidence, Posterior, sum_paths, weigh
from vditrack.points.track_blocks import empty_block, write_frame
from vditrack_export.calibrate.clips import EncodedClip, ReportShare

_IMPOSSIBLE = -30.0
"""Log-odds that the truth gives to places where the point is not."""
_PRECISION = 1.2
"""Standard deviation, in pixels at a width of 256, of a place that counts as right."""
_FAIR = -6.0
"""Least log-odds of a place that is near enough to be right."""
_NEAR = 5.0
"""Pixels at a width of 256 within which a place is near enough."""
_POOR = 10.0
"""Where no place is near enough, the point may be hidden, or within this distance."""
_PENALTY = 1e-3
"""On the square of each weight, times the deviation of what it weights."""
_DIGITS = 4
"""Significant digits of a weight."""
_EVIDENCE = 8
"""Weights of evidence at a place."""

START = PathChoice(
    bias=0.0,
    similarity=0.0,
    distinction=0.0,
    near_correlation=0.0,
    wide_correlation=0.0,
    tracked=0.0,
    tracked_confidence=0.0,
    forward_error=0.0,
    backward_error=0.0,
    step=0.0,
    step_on=1.0,
    step_beside=0.0,
    step_off=-0.5,
    step_disagreement=0.0,
    lost=-2.0,
    found=-2.0,
    hidden=0.0,
)
"""The weights that fitting starts from."""


@dataclass(frozen=True)
class PathExample:
    """The evidence for paths of N points of a clip, and what is true."""

    evidence: PathEvidence
    truth: Doubles
    """[N, T, S + 1] log-odds that the truth gives to each place, and to being hidden."""


def collect_examples(
    clips: Sequence[EncodedClip],
    settings: Matching,
    flow_tracking: FlowTracking,
    report_share: ReportShare,
) -> list[PathExample]:
    """Track clips forward, as `Tracker.track` does, and read the evidence for doubtful points.

    Args:
        clips: clips with their features.
        settings: the bundle's settings.
        flow_tracking: the bundle's settings of the flow tracker, with recovery.
        report_share: called after each frame, see `ReportShare`.

    Raises:
        InputError: the bundle does not search for lost points, or no point is doubtful.

    """
    examples = [
        example
        for clip in clips
        for example in _read_examples(clip, settings, flow_tracking, report_share)
    ]
    if not examples:
        raise InputError(
            "no point of these clips is doubtful, so there are no paths to choose among. Give "
            "harder clips, such as deformed:1."
        )
    return examples


def fit_paths(examples: Sequence[PathExample]) -> PathChoice:
    """Return the weights under which the true paths are likeliest.

    Args:
        examples: at least one.

    """
    from scipy.optimize import minimize  # noqa: PLC0415

    scale = _deviations(examples)

    def loss(scaled: Doubles) -> tuple[float, Doubles]:
        value, gradient = measure_loss(examples, scaled / scale)
        penalty = _PENALTY * scaled[1:] ** 2
        slope = gradient / scale
        slope[1:] += 2 * _PENALTY * scaled[1:]
        return value + float(penalty.sum()), slope

    start = np.array(msgspec.structs.astuple(START)) * scale
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return _from_vector(found.x / scale)


def measure_loss(examples: Sequence[PathExample], weights: Doubles) -> tuple[float, Doubles]:
    """Return the mean negative log-likelihood of true paths for a frame, and its gradient.

    Args:
        examples: at least one.
        weights: [17] in the order of the fields of `PathChoice`.

    """
    choice = PathChoice(**dict(zip(PathChoice.__struct_fields__, weights.tolist(), strict=True)))
    total, gradient, points = 0.0, np.zeros(len(weights)), 0
    for example in examples:
        evidence = example.evidence
        free = weigh(evidence, choice)
        bound = replace(free, states=free.states + example.truth)
        frames = np.maximum(1, evidence.usable.shape[1] - 1 - evidence.first)
        without, given = sum_paths(free), sum_paths(bound)
        total += float(((without.log_sum - given.log_sum) / frames).sum())
        gradient += _expect(evidence, without, 1 / frames) - _expect(evidence, given, 1 / frames)
        points += len(frames)
    return total / points, gradient / points


def label(evidence: PathEvidence, truth: Floats, visible: Bools) -> Doubles:
    """Return the log-odds [N, T, S + 1] that the truth gives to each place, and to being hidden.

    Args:
        evidence: of N points in T frames.
        truth: [N, T, 2] (x, y) in pixels at a width of 256.
        visible: [N, T].

    """
    error = np.linalg.norm(evidence.places - truth[:, :, None], axis=3).astype(np.float64)
    error[~evidence.usable] = np.inf
    best = error.min(axis=2, keepdims=True)
    found = visible & (best[:, :, 0] <= _NEAR)
    excess = np.where(found[:, :, None], error**2 - np.where(np.isfinite(best), best, 0) ** 2, 0)
    right = np.maximum(_FAIR, -excess / (2 * _PRECISION**2))
    near = error < np.maximum(_NEAR, best + 0.5)
    poor = visible[:, :, None] & (error < _POOR)
    at_places = np.where(
        found[:, :, None],
        np.where(near, right, _IMPOSSIBLE),
        np.where(poor, -0.5, _IMPOSSIBLE),
    )
    hidden = np.where(found, _IMPOSSIBLE, 0.0)
    return np.concatenate([at_places, hidden[:, :, None]], axis=2)


def _read_examples(
    encoded: EncodedClip, settings: Matching, flow_tracking: FlowTracking, report: ReportShare
) -> Iterator[PathExample]:
    reader, gaps = make_reader(encoded.grid, settings, flow_tracking), flow_tracking.gaps
    if reader is None:
        raise InputError(
            "the bundle forgets how points looked at their queries, so it chooses no "
            "paths. Leave out --paths, or change [matching.flow_tracking] of its card and "
            "export it again."
        )
    clip, queries, starts = encoded.clip, encoded.queries, encoded.query_points
    tracker = FlowTracker(encoded.grid, settings, flow_tracking)
    asked = np.column_stack([queries.frames, starts]).astype(np.float32)
    block = empty_block(asked, 0, np.arange(len(clip.frames)) / 30, backward=False)
    filler = None if gaps is None else GapFiller(block, tracker, gaps)
    chooser = PathChooser(block, tracker, reader)
    for frame, features in enumerate(encoded.read_maps()):
        image = grey_levels(clip.frames[frame])
        tracker.advance(features, image)
        added = np.flatnonzero(queries.frames == frame)
        if len(added):
            tracker.add(added, starts[added])
        write_frame(block, frame, tracker)
        if filler is not None:
            filler.observe(frame, image, features, 1.0)
        chooser.observe(frame, image, features)
        report(1 / len(clip.frames))
    if filler is not None:
        filler.fill()
    unit = pixel_unit(clip.frames.shape[1:3])
    for rows, evidence in chooser.read():
        tracks = queries.tracks[rows]
        truth = np.asarray(clip.points[tracks] / unit, np.float32)
        yield PathExample(evidence, label(evidence, truth, clip.visible[tracks]))


def _expect(evidence: PathEvidence, posterior: Posterior, weights: Doubles) -> Doubles:
    """Return what each weight of `PathChoice` multiplies in the mean over paths, [17].

    Args:
        evidence: of N points.
        posterior: the probabilities of their states and steps.
        weights: [N] of the points.

    """
    # The frame of a query has no evidence: its state is known.
    states = posterior.states.copy()
    rows = np.flatnonzero(evidence.queried)
    states[rows, evidence.first[rows]] = 0
    places = states[:, :, :-1] * weights[:, None, None] * evidence.usable
    steps = posterior.steps * weights[:, None, None, None]
    between = steps[:, :, :-1, :-1]
    return np.concatenate(
        [
            [places.sum()],
            np.einsum("nts,ntsk->k", places, evidence.of_places),
            [between.sum()],
            np.einsum("ntab,ntabl->l", between, evidence.of_steps),
            [steps[:, :, :-1, -1].sum(), steps[:, :, -1, :-1].sum(), steps[:, :, -1, -1].sum()],
        ]
    )


def _deviations(examples: Sequence[PathExample]) -> Doubles:
    """Return the standard deviation [17] of what each weight multiplies; 1 for constants."""
    of_places = np.concatenate([e.evidence.of_places[e.evidence.usable] for e in examples])
    steps = [e.evidence.of_steps.reshape(-1, e.evidence.of_steps.shape[-1]) for e in examples]
    scale = np.ones(len(PathChoice.__struct_fields__))
    scale[1 : 1 + _EVIDENCE] = of_places.std(axis=0) + 1e-2
    scale[2 + _EVIDENCE : -3] = np.concatenate(steps).std(axis=0) + 1e-2
    return scale


def _from_vector(weights: Doubles) -> PathChoice:
    rounded = [float(f"{value:.{_DIGITS}g}") for value in weights.tolist()]
    return PathChoice(**dict(zip(PathChoice.__struct_fields__, rounded, strict=True)))
