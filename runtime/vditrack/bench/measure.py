"""One measurement from end to end."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from vditrack.arrays import Floats, Frame
from vditrack.bench.baseline import LucasKanadeStream
from vditrack.bench.camera import CLOCK, Clock
from vditrack.bench.feed import WHOLE, Feed, StageSeconds
from vditrack.bench.gpu import read_gpu_memory_mib
from vditrack.bench.machine import (
    read_load_average,
    read_machine,
    read_peak_memory_mib,
    read_versions,
)
from vditrack.bench.result import (
    SCHEMA_VERSION,
    BenchResult,
    BundleIdentity,
    CameraRun,
    Distribution,
    Figures,
    Memory,
    Settings,
    seconds_of_pushes,
    summarize_camera,
    summarize_durations,
    summarize_networks,
    summarize_stages,
)
from vditrack.bench.search import search_highest_rate
from vditrack.bundle.folder import MANIFEST, Bundle
from vditrack.synthetic.layers.clips import render_clip
from vditrack.tracker import Tracker

Report = Callable[[str, float], None]
"""Called with the name of the next step and about how many seconds are left in all."""

CLIP_FRAMES = 24
WARM_UP_SECONDS, WARM_UP_FRAMES = 2.0, 20
"""The warm-up ends with whichever comes first."""
BASELINE_SECONDS = 0.5


@dataclass(frozen=True)
class _Started:
    """A tracker whose stream tracks the points, after the warm-up."""

    tracker: Tracker
    feed: Feed
    first_result: float
    """Seconds from the start of loading to the first positions."""
    warm_up: list[StageSeconds]


def measure(
    load: Callable[[], Tracker], settings: Settings, report: Report, clock: Clock = CLOCK
) -> BenchResult:
    """Measure a bundle on a rendered clip.

    Args:
        load: Loads the tracker, which is measured too.
        settings: Rate, duration, number of points and size of the frames.
        report: Called before each step.
        clock: The source of time.

    Raises:
        BundleError: The bundle is missing, damaged, or of another version.
        BackendError: No inference engine is installed, it refuses the model, or the backend named
            does not work here.

    """
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine, load_average = read_machine(), read_load_average()
    left = BASELINE_SECONDS + 2 * settings.duration
    report("rendering the clip", left + WARM_UP_SECONDS)
    frames = render_clip(0, settings.height, settings.width, CLIP_FRAMES, points=0).frames
    points = make_grid(settings.points, settings.width, settings.height)
    memory_before = read_peak_memory_mib()

    report("loading and warming up", left + WARM_UP_SECONDS)
    started = _start(load, frames, points, clock)
    figures, trials = _measure_figures(
        started, frames, points, settings, memory_before, report, clock
    )
    return BenchResult(
        schema_version=SCHEMA_VERSION,
        date=date,
        machine=machine,
        load_average=load_average,
        versions=read_versions(started.tracker.backend.name),
        backend=started.tracker.backend.name,
        bundle=_identify(started.tracker.bundle),
        clip_sha256=hashlib.sha256(frames.data).hexdigest(),
        settings=settings,
        figures=figures,
        trials=trials,
    )


def _measure_figures(
    started: _Started,
    frames: Frame,
    points: Floats,
    settings: Settings,
    memory_before: float,
    report: Report,
    clock: Clock,
) -> tuple[Figures, tuple[CameraRun, ...]]:
    """Return all figures, and the trials of the search for the highest rate."""
    left = BASELINE_SECONDS + 2 * settings.duration
    report(f"a camera of {settings.rate:g} frames per second", left)
    times, pushes = started.feed.push_at_rate(settings.rate, settings.duration)
    memory = Memory(
        peak_before_load=memory_before, peak=read_peak_memory_mib(), gpu=read_gpu_memory_mib()
    )
    report("the baseline, Lucas-Kanade", left - settings.duration)
    klt_ms = _measure_baseline(frames, points, clock)
    report("highest rate: free run", settings.duration)
    search = search_highest_rate(started.feed, settings.duration, report)
    work_ms = summarize_stages(pushes)
    runs, networks_ms = summarize_networks(pushes)
    figures = Figures(
        first_result_ms=1e3 * started.first_result,
        warm_up_frames=len(started.warm_up),
        warm_up_ms=summarize_durations(seconds_of_pushes(started.warm_up)),
        work_ms=work_ms,
        latents=runs * started.tracker.bundle.manifest.input.latents_of_step,
        networks_ms=networks_ms,
        fixed_rate=summarize_camera(times),
        free_rate=search.free_rate,
        highest_rate=search.highest_rate,
        klt_ms=klt_ms,
        times_of_klt=work_ms[WHOLE].mean / klt_ms.mean,
        memory_mib=memory,
    )
    return figures, search.trials


def _start(load: Callable[[], Tracker], frames: Frame, points: Floats, clock: Clock) -> _Started:
    """Load the tracker, add the points and warm up."""
    began = clock.now()
    tracker = load()
    stream = tracker.stream()
    feed = Feed(stream.push, frames, clock)
    feed.push_next()
    stream.add(points)
    feed.push_next()
    first_result = clock.now() - began
    warm_up = feed.push_unpaced(WARM_UP_SECONDS, WARM_UP_FRAMES)
    return _Started(tracker, feed, first_result, warm_up)


def _measure_baseline(frames: Frame, points: Floats, clock: Clock) -> Distribution:
    """Return the time of a Lucas-Kanade step on the same frames and points, in milliseconds."""
    feed = Feed(LucasKanadeStream(points).push, frames, clock)
    feed.push_next()
    return summarize_durations(seconds_of_pushes(feed.push_unpaced(BASELINE_SECONDS)))


def make_grid(count: int, width: int, height: int) -> Floats:
    """Return points float32 [count, 2] (x, y) on a grid of nearly square cells, row by row.

    The last row is not full where ``count`` does not divide.
    """
    columns = min(count, max(1, round(math.sqrt(count * width / height))))
    rows = math.ceil(count / columns)
    index = np.arange(count)
    x = (index % columns + 0.5) * width / columns
    y = (index // columns + 0.5) * height / rows
    return np.stack([x, y], axis=1).astype(np.float32)


def _identify(bundle: Bundle) -> BundleIdentity:
    digest = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    return BundleIdentity(name=bundle.manifest.name, sha256=digest)
