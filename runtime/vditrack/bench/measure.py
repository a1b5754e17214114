"""One measurement from end to end."""

import hashlib
import math
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vditrack.bench.baseline import LucasKanadeStream
from vditrack.bench.camera import CLOCK, Clock
from vditrack.bench.feed import WHOLE, Feed
from vditrack.bench.gpu import gpu_memory_mib
from vditrack.bench.machine import load_average, peak_resident_mib, read_machine, versions
from vditrack.bench.result import (
    SCHEMA_VERSION,
    BenchResult,
    BundleIdentity,
    Figures,
    Memory,
    Settings,
    distribution,
    filmed,
    wholes,
    work,
)
from vditrack.bench.search import search
from vditrack.bundle.folder import MANIFEST, Bundle
from vditrack.synthetic.layers.clips import make_clip
from vditrack.tracker import Tracker

Report = Callable[[str, float], None]
"""Called with what is done next and about how many seconds are left in all."""

CLIP_FRAMES = 24
WARM_UP_SECONDS, WARM_UP_FRAMES = 2.0, 20
"""The warm-up ends with whichever comes first."""
BASELINE_SECONDS = 0.5


def measure(
    bundle: Path | None,
    settings: Settings,
    report: Report,
    clock: Clock = CLOCK,
    *,
    backend: str = "auto",
) -> BenchResult:
    """Measure a bundle, the bundled model by default, on a rendered clip.

    Raises:
        BundleError: the bundle is missing, damaged, or not of this version.
        BackendError: no inference engine is installed, it refuses the model, or the backend named
            does not work here.

    """
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine, load = read_machine(), load_average()
    left = BASELINE_SECONDS + 2 * settings.duration
    report("rendering the clip", left + WARM_UP_SECONDS)
    frames = make_clip(0, settings.height, settings.width, CLIP_FRAMES, points=0).frames
    points = grid(settings.points, settings.width, settings.height)
    before_load = peak_resident_mib()

    report("loading and warming up", left + WARM_UP_SECONDS)
    began = clock.now()
    tracker = Tracker.load(bundle, backend)
    stream = tracker.stream()
    feed = Feed(stream.push, frames, clock)
    feed.once()
    stream.add(points)
    feed.once()
    first_result = clock.now() - began
    warm_up = feed.freely(WARM_UP_SECONDS, WARM_UP_FRAMES)

    report(f"a camera of {settings.rate:g} frames a second", left)
    passage, pushes = feed.filmed(settings.rate, settings.duration)
    memory = Memory(peak_before_load=before_load, peak=peak_resident_mib(), gpu=gpu_memory_mib())
    left -= settings.duration
    report("the baseline, Lucas-Kanade", left)
    klt = Feed(LucasKanadeStream(points).push, frames, clock)
    klt.once()
    klt_ms = distribution(wholes(klt.freely(BASELINE_SECONDS)))
    report("highest rate: free run", settings.duration)
    found = search(feed, settings.duration, report)
    work_ms = work(pushes)
    return BenchResult(
        schema_version=SCHEMA_VERSION,
        date=date,
        machine=machine,
        load_average=load,
        versions=versions(tracker.backend.name),
        backend=tracker.backend.name,
        bundle=_identity(tracker.bundle),
        clip_sha256=hashlib.sha256(frames.data).hexdigest(),
        settings=settings,
        figures=Figures(
            first_result_ms=1e3 * first_result,
            warm_up_frames=len(warm_up),
            warm_up_ms=distribution(wholes(warm_up)),
            work_ms=work_ms,
            fixed_rate=filmed(passage),
            free_rate=found.free_rate,
            highest_rate=found.highest_rate,
            klt_ms=klt_ms,
            times_of_klt=work_ms[WHOLE].mean / klt_ms.mean,
            memory_mib=memory,
        ),
        trials=found.trials,
    )


def grid(count: int, width: int, height: int) -> NDArray[np.float32]:
    """Points [count, 2] (x, y) row by row on a grid of about square cells over the picture.

    The last row is not full where the count does not divide.
    """
    columns = min(count, max(1, round(math.sqrt(count * width / height))))
    rows = math.ceil(count / columns)
    index = np.arange(count)
    x = (index % columns + 0.5) * width / columns
    y = (index // columns + 0.5) * height / rows
    return np.stack([x, y], axis=1).astype(np.float32)


def _identity(bundle: Bundle) -> BundleIdentity:
    digest = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    return BundleIdentity(name=bundle.manifest.name, sha256=digest)
