"""How well the node keeps up, told on /diagnostics. Needs no ROS but in `diagnostic_status`."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vditrack import Tracker
from vditrack.inference.engine_identity import Identity
from vditrack.streams.mask_stream import MaskUpdate
from vditrack_ros.counters import Counts, MaskCounts
from vditrack_ros.parameters import Settings

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticStatus


OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""


@dataclass(frozen=True)
class Report:
    """What is told of a camera or of the model."""

    level: int
    message: str
    values: dict[str, str]


@dataclass(frozen=True)
class State:
    """Of a camera, at the moment of the report."""

    topic: str
    publishers: int
    paused: bool


@dataclass(frozen=True)
class Followed:
    """What is followed through a camera's images, at the moment of the report."""

    name: str
    values: dict[str, str]
    complaints: tuple[tuple[int, str], ...] = ()


def points_followed(alive: int, visible: int, described_rate: float | None) -> Followed:
    """Tell of points."""
    values = {
        "rate described by the model (Hz)": _number(described_rate),
        "points alive": str(alive),
        "points visible": str(visible),
    }
    return Followed("points", values)


def objects_followed(
    update: MaskUpdate | None, counts: MaskCounts, waiting: int, remembered: int, now: float
) -> Followed:
    """Tell of objects.

    Args:
        update: where they are in the newest image that was described.
        counts: on the way there.
        waiting: masks whose image has not come yet.
        remembered: images on which objects were marked.
        now: on the clock of ``counts``.

    """
    ages = [] if update is None else update.frames_since_marked.tolist()
    present = 0 if update is None else int(np.isin(update.indices, update.mask).sum())
    values = {
        "images passed over": str(counts.passed_over),
        "objects": str(len(ages)),
        "objects present": str(present),
        "images since an object was marked, at most": str(max(ages, default=0)),
        "images remembered for their marks": str(remembered),
        "masks taken": str(counts.marked),
        "masks waiting": str(waiting),
        **{f"masks refused, {why}": str(count) for why, count in counts.refused.items()},
    }
    refused = len(counts.refusals.values(now))
    if not refused:
        return Followed("masks", values)
    return Followed("masks", values, ((WARN, f"{refused} masks refused: {counts.last_error}"),))


def camera_report(
    counts: Counts, state: State, followed: Followed, settings: Settings, now: float
) -> Report:
    """Judge a camera: the worst complaint gives the level, all of them the message."""
    timings = counts.recent(now)
    rate_in, rate_out = counts.rate_in(now), len(timings) / counts.span(now)
    latencies = np.array([timing.latency for timing in timings] or [np.nan])
    drops = {why: sum(window.values(now)) for why, window in counts.dropped.items()}
    complaints = [
        *_silence(counts, state, settings, now),
        *_slowness(latencies, settings),
        *_losses(counts, drops, followed.name, settings, now),
        *followed.complaints,
    ]
    level = max((level for level, _ in complaints), default=OK)
    message = " ".join(text for _, text in complaints)
    p50, p95, p99 = (_number(1000 * np.percentile(latencies, q)) for q in (50, 95, 99))
    values = {
        # Units are in the keys, so that tools can plot the values.
        "rate in (Hz)": _number(rate_in),
        "rate out (Hz)": _number(rate_out),
        "latency p50 (ms)": p50,
        "latency p95 (ms)": p95,
        "latency p99 (ms)": p99,
        "overhead (ms)": _median([timing.overhead for timing in timings]),
        "overhead of decoding (ms)": _median([timing.decode for timing in timings]),
        "overhead of publishing (ms)": _median([timing.publish for timing in timings]),
        "tracking (ms)": _median([timing.track for timing in timings]),
        **{f"dropped, {why}": str(total) for why, total in counts.totals.items()},
        **followed.values,
    }
    return Report(level, message or f"{rate_in:.1f} images a second in, {rate_out:.1f} out", values)


def _silence(counts: Counts, state: State, settings: Settings, now: float) -> list[tuple[int, str]]:
    if state.paused:
        return [(OK, "Paused.")]
    quiet = now - (counts.since if counts.last_image is None else counts.last_image)
    if quiet <= settings.stale_after:
        return []
    if state.publishers == 0:
        return [(ERROR, f"No image for {quiet:.0f} s: nobody publishes {state.topic}.")]
    why = (
        f"{state.publishers} publish {state.topic}. Is the camera running, and does the parameter "
        "reliability suit it?"
    )
    return [(ERROR, f"No image for {quiet:.0f} s, though {why}")]


def _slowness(latencies: NDArray[np.float64], settings: Settings) -> list[tuple[int, str]]:
    p50, p95 = np.percentile(latencies, (50, 95))
    if p95 > settings.error_latency:
        return [(ERROR, f"Latency is {_milliseconds(p95)} at the 95th percentile.")]
    if p95 > settings.warn_latency:
        return [(WARN, f"Latency is {_milliseconds(p95)} at the 95th percentile.")]
    if p50 < -settings.warn_latency:
        return [(WARN, f"Stamps are {_milliseconds(-p50)} ahead of this node's clock.")]
    return []


def _losses(
    counts: Counts, drops: dict[str, float], name: str, settings: Settings, now: float
) -> list[tuple[int, str]]:
    if drops["failed"]:
        return [(ERROR, f"Tracking fails: {counts.last_error}")]
    total = sum(drops.values())
    # Those overtaken or lost have not arrived.
    sent = len(counts.images.values(now)) + drops["overtaken"] + drops["lost"]
    if not total or total <= settings.warn_dropped * sent:
        return []
    reasons = ", ".join(f"{count:.0f} {why}" for why, count in drops.items() if count)
    hint = f" {counts.last_error}" if drops["malformed"] else ""
    return [(WARN, f"{total:.0f} of {sent:.0f} images gave no {name}: {reasons}.{hint}")]


def model_report(tracker: Tracker) -> Report:
    """Tell what runs the model, what was tried before, and what memory the process has."""
    backend = tracker.backend
    source = tracker.bundle.manifest.source
    values = {
        "model": f"{source.card}, {tracker.bundle.root}",
        "backend": backend.name,
        **{f"not {fallback.name}": fallback.reason for fallback in backend.fallbacks},
        "engine": "none" if backend.engine is None else _told(backend.engine),
        "memory (MB)": f"{resident_memory() / 1e6:.0f}",
    }
    return Report(OK, f"{source.card} on {backend.name}", values)


def _told(engine: Identity) -> str:
    built = engine.gpu or "no GPU"
    return (
        f"{engine.target} {engine.version} for {', '.join(engine.architectures)}, built on {built}"
    )


def resident_memory() -> int:
    """Bytes of this process in memory; where the system does not say, the most there have been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def diagnostic_status(name: str, hardware: str, report: Report) -> DiagnosticStatus:
    """Make a diagnostic_msgs/DiagnosticStatus of a report."""
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue  # noqa: PLC0415

    values = [KeyValue(key=key, value=value) for key, value in report.values.items()]
    return DiagnosticStatus(
        level=bytes([report.level]),
        name=name,
        hardware_id=hardware,
        message=report.message,
        values=values,
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _number(value: float | None) -> str:
    return "unknown" if value is None or np.isnan(value) else f"{value:.1f}"


def _median(seconds: list[float]) -> str:
    return _number(1000 * float(np.median(seconds)) if seconds else None)
