"""Reports for /diagnostics. Only `build_diagnostic_status` needs ROS."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vditrack import Tracker
from vditrack.arrays import Doubles
from vditrack.inference.engine_identity import Identity
from vditrack.input_checks.text import clean_line
from vditrack.streams.mask_stream import MaskUpdate
from vditrack_ros.counters import ImageCounters, MaskCounters
from vditrack_ros.parameters.settings import Settings

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""


class NodeState(Enum):
    """A primary state of the node's lifecycle."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    ACTIVE = "active"
    FINALIZED = "finalized"


_NEXT_STEPS = {
    NodeState.UNCONFIGURED: "it tracks nothing until it is configured and activated.",
    NodeState.INACTIVE: "it tracks nothing until it is activated.",
    NodeState.FINALIZED: "it was shut down. End the process and start it again.",
}
"""What each state means for the user."""

Problem = tuple[int, str]
"""A level and the sentence that says what is wrong."""


@dataclass(frozen=True)
class Report:
    """Content of a diagnostic status."""

    level: int
    message: str
    values: dict[str, str]


@dataclass(frozen=True)
class ConsumerSummary:
    """What a consumer adds to the report of its camera."""

    name: str
    """What it makes of an image: "points" or "masks"."""
    values: dict[str, str]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class CameraState:
    """State of a camera at the time of the report."""

    topic: str
    publishers: int
    """Number of publishers of the topic."""
    paused: bool
    reliable: bool
    """Whether the subscription to the topic is reliable."""
    loss_remedy: str
    """Likely cause of lost images, and what to do."""


def summarize_points(
    alive: int, visible: int, model_rate: float | None, images_of_step: int = 1
) -> ConsumerSummary:
    """Summarize the tracked points.

    Args:
        alive: number of points.
        visible: number of visible points.
        model_rate: frames per second that the model describes; None while unknown.
        images_of_step: frames that the model reads at a time, of which it describes the last.

    """
    values = {
        "images read by the model at a time": str(images_of_step),
        "rate described by the model (Hz)": _format_number(model_rate),
        "points alive": str(alive),
        "points visible": str(visible),
    }
    return ConsumerSummary("points", values)


def summarize_masks(
    update: MaskUpdate | None, counters: MaskCounters, waiting: int, now: float
) -> ConsumerSummary:
    """Summarize the tracked objects.

    Args:
        update: the newest masks; None before the first.
        counters: of requests and images.
        waiting: number of requests that wait for their image.
        now: monotonic time in seconds.

    """
    ages = [] if update is None else update.frames_since_marked.tolist()
    present = 0 if update is None else int(np.isin(update.indices, update.mask).sum())
    values = {
        "images passed over": str(counters.skipped_images),
        "images with carried masks": str(counters.carried_images),
        "objects": str(len(ages)),
        "objects present": str(present),
        "images since an object was marked, at most": str(max(ages, default=0)),
        "masks taken": str(counters.accepted),
        "masks superseded": str(counters.superseded),
        "masks waiting": str(waiting),
        **{f"masks refused, {reason}": str(count) for reason, count in counters.refused.items()},
    }
    refused = len(counters.refusals.values(now))
    if not refused:
        return ConsumerSummary("masks", values)
    problem = WARN, f"{refused} masks refused: {counters.last_error}"
    return ConsumerSummary("masks", values, (problem,))


def build_camera_report(
    counters: ImageCounters,
    state: CameraState,
    summary: ConsumerSummary,
    settings: Settings,
    now: float,
) -> Report:
    """Return the report of a camera: the worst level, and the sentences of all problems.

    Args:
        counters: of the camera's images.
        state: of the camera.
        summary: of the points or masks.
        settings: the node's, with the limits.
        now: monotonic time in seconds.

    """
    timings = counters.timings.values(now)
    rate_in, rate_out = counters.input_rate(now), counters.output_rate(now)
    latencies = np.array([timing.latency for timing in timings] or [np.nan])
    drops = {reason: sum(window.values(now)) for reason, window in counters.dropped.items()}
    problems = [
        *_check_silence(counters, state, settings, now),
        *_check_latency(latencies, settings),
        *_check_drops(counters, drops, summary.name, state, settings, now),
        *summary.problems,
    ]
    level = max((level for level, _ in problems), default=OK)
    message = " ".join(text for _, text in problems)
    p50, p95, p99 = (_format_number(1000 * np.percentile(latencies, q)) for q in (50, 95, 99))
    values = {
        "reliability": "reliable" if state.reliable else "best effort",
        # Units are in the keys, so that tools can plot the values.
        "rate in (Hz)": _format_number(rate_in),
        "rate out (Hz)": _format_number(rate_out),
        "latency p50 (ms)": p50,
        "latency p95 (ms)": p95,
        "latency p99 (ms)": p99,
        "overhead (ms)": _format_median([timing.overhead for timing in timings]),
        "overhead of decoding (ms)": _format_median([timing.decode for timing in timings]),
        "overhead of publishing (ms)": _format_median([timing.publish for timing in timings]),
        "tracking (ms)": _format_median([timing.track for timing in timings]),
        "left out by max_rate": str(counters.left_out),
        **{f"dropped, {reason}": str(total) for reason, total in counters.totals.items()},
        **summary.values,
    }
    rates = f"Images: {rate_in:.1f} per second in, {rate_out:.1f} per second out."
    return Report(level, message or rates, values)


def _check_silence(
    counters: ImageCounters, state: CameraState, settings: Settings, now: float
) -> list[Problem]:
    if state.paused:
        return [(OK, "Paused.")]
    last = counters.started if counters.last_image is None else counters.last_image
    silence = now - last
    if silence <= settings.stale_after:
        return []
    if state.publishers == 0:
        return [(ERROR, f"No image for {silence:.0f} s: {state.topic} has no publisher.")]
    if counters.lost(now):
        return [(ERROR, f"No image for {silence:.0f} s: all images on {state.topic} are lost.")]
    return [
        (
            ERROR,
            f"No image for {silence:.0f} s, although {state.topic} has {state.publishers} "
            "publishers. Check that the camera runs, and that the parameter reliability suits it.",
        )
    ]


def _check_latency(latencies: Doubles, settings: Settings) -> list[Problem]:
    p50, p95 = np.percentile(latencies, (50, 95))
    if p95 > settings.error_latency:
        return [(ERROR, f"The 95th percentile of the latency is {_format_milliseconds(p95)}.")]
    if p95 > settings.warn_latency:
        return [(WARN, f"The 95th percentile of the latency is {_format_milliseconds(p95)}.")]
    if p50 < -settings.warn_latency:
        return [(WARN, f"Stamps are {_format_milliseconds(-p50)} ahead of this node's clock.")]
    return []


def _check_drops(
    counters: ImageCounters,
    drops: dict[str, float],
    name: str,
    state: CameraState,
    settings: Settings,
    now: float,
) -> list[Problem]:
    if drops["failed"]:
        return [(ERROR, f"Tracking fails: {counters.last_error}")]
    total, sent = sum(drops.values()), counters.sent(now)
    if not total or total <= settings.warn_dropped * sent:
        return []
    reasons = ", ".join(f"{count:.0f} {reason}" for reason, count in drops.items() if count)
    text = f"{total:.0f} of {sent:.0f} images gave no {name}: {reasons}."
    if drops["malformed"]:
        text += f" {counters.last_error}"
    if drops["lost"] > settings.warn_dropped * sent:
        text += f" {state.loss_remedy}"
    return [(WARN, text)]


def build_node_report(tracker: Tracker | None, state: NodeState, failure: str) -> Report:
    """Return the report of the node: its state, and the model that is loaded.

    Args:
        tracker: the loaded model; None while the node is not configured.
        state: of the node's lifecycle.
        failure: why the last transition failed; empty if it succeeded.

    """
    values = {"state": state.value} | ({} if tracker is None else _describe_model(tracker))
    values["memory (MB)"] = f"{measure_resident_memory() / 1e6:.0f}"
    if failure:
        return Report(ERROR, f"The node is {state.value}. {failure}", values)
    if tracker is not None and state is NodeState.ACTIVE:
        model = tracker.bundle.manifest.source.card
        return Report(OK, f"{model} on {tracker.backend.name}", values)
    return Report(WARN, f"The node is {state.value}: {_NEXT_STEPS[state]}", values)


def _describe_model(tracker: Tracker) -> dict[str, str]:
    """Return the values of the loaded model: its backend, and why others are not used."""
    backend = tracker.backend
    return {
        "model": f"{tracker.bundle.manifest.source.card}, {tracker.bundle.root}",
        "backend": backend.name,
        **{f"not {fallback.name}": fallback.reason for fallback in backend.fallbacks},
        "engine": "none" if backend.engine is None else _format_engine(backend.engine),
    }


def _format_engine(engine: Identity) -> str:
    gpu = engine.gpu or "no GPU"
    return f"{engine.target} {engine.version} for {', '.join(engine.architectures)}, built on {gpu}"


def measure_resident_memory() -> int:
    """Return the resident memory of this process in bytes, or its peak where only that is known."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_diagnostic_status(name: str, hardware: str, report: Report) -> DiagnosticStatus:
    """Return a report as a diagnostic_msgs/DiagnosticStatus.

    Args:
        name: of the status.
        hardware: its hardware_id.
        report: the content.

    """
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue  # noqa: PLC0415

    # Texts of bundles and libraries are printed by monitors in terminals.
    values = [
        KeyValue(key=clean_line(key), value=clean_line(value))
        for key, value in report.values.items()
    ]
    return DiagnosticStatus(
        level=bytes([report.level]),
        name=name,
        hardware_id=hardware,
        message=clean_line(report.message),
        values=values,
    )


def _format_milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _format_number(value: float | None) -> str:
    return "unknown" if value is None or np.isnan(value) else f"{value:.1f}"


def _format_median(seconds: list[float]) -> str:
    return _format_number(1000 * float(np.median(seconds)) if seconds else None)
