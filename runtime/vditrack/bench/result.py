"""The result of a measurement: what is in its file, and the figures of raw times."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from vditrack.bench.camera import Passage
from vditrack.bench.feed import WHOLE, Spent
from vditrack.errors import InputError

SCHEMA_VERSION = 1
OTHER = "other"
"""What a push spends outside of its stages."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of durations in milliseconds; percentiles interpolate linearly, as numpy's do."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class Latency(Distribution, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From the moment a frame was due to its result, over the processed frames, in ms."""

    first: float
    last: float


class Filmed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream behind a camera of a fixed rate, with a queue of one frame."""

    rate: float
    """Frames a second offered."""
    offered: int
    processed: int
    dropped: int
    output_rate: float | None
    """Results a second from the first to the last; null for fewer than two."""
    jitter_ms: float | None
    """Standard deviation of the time between consecutive results; null for fewer than three."""
    latency_ms: Latency


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In MiB (2^20 bytes)."""

    peak_before_load: float
    """Peak resident memory of the process before the tracker was loaded: Python and the clip."""
    peak: float
    """The same at the end of the fixed rate (getrusage, which is VmHWM on Linux)."""
    gpu: float | None
    """Used by this process on all GPUs, by NVML; null without NVML or where it does not say."""


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured."""

    first_result_ms: float
    """From the start of loading to the first positions: load, push, add the points, push."""
    warm_up_frames: int
    warm_up_ms: Distribution
    """Pushes after the first result that are left out of everything else."""
    work_ms: dict[str, Distribution]
    """By stage, at the fixed rate, then ``other`` and ``whole``: milliseconds a push."""
    fixed_rate: Filmed
    free_rate: float
    """Frames a second when the next is pushed as soon as the last one is done."""
    highest_rate: float | None
    """Highest rate tried at which at most 5% of the frames were dropped; null if none."""
    klt_ms: Distribution
    """OpenCV's pyramidal Lucas-Kanade, forward and backward, on the same frames and points."""
    times_of_klt: float
    """Mean of the whole push over mean of Lucas-Kanade's step."""
    memory_mib: Memory


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was asked for."""

    rate: float
    duration: float
    """Seconds at the fixed rate; the search for the highest takes about as many again."""
    points: int
    width: int
    height: int


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it was measured."""

    cpu: str
    cores: int
    """That this process may use."""
    cpu_limit: float | None
    """Cores' worth of time that the container may use; null where there is no such limit."""
    memory_gib: float
    system: str
    governor: str | None
    """Of CPU frequency, on the first core; null where it cannot be read."""
    gpus: tuple[str, ...]


class BundleIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model ran."""

    name: str
    sha256: str
    """Of ``bundle.json``, which holds the digests of the other files."""


class BenchResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of ``vditrack bench``: the content of its JSON."""

    schema_version: int
    date: str
    """UTC, ISO 8601."""
    machine: Machine
    load_average: float
    """Over the minute before the start."""
    versions: dict[str, str]
    backend: str
    bundle: BundleIdentity
    clip_sha256: str
    settings: Settings
    figures: Figures
    trials: tuple[Filmed, ...]
    """The search for the highest rate, in its order."""


def distribution(seconds: ArrayLike) -> Distribution:
    """Figures of durations [N] in seconds."""
    milliseconds = 1e3 * np.asarray(seconds, np.float64)
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    mean, largest = float(milliseconds.mean()), float(milliseconds.max())
    return Distribution(mean=mean, p50=p50, p95=p95, p99=p99, max=largest)


def filmed(passage: Passage) -> Filmed:
    """Figures of a passage, as ros2_benchmark names them, with tails.

    Two definitions differ from its: it counts one frame more in the output rate, and its jitter
    is the mean change between consecutive intervals.
    """
    done, processed = passage.done, len(passage.done)
    latency = done - passage.arrived
    return Filmed(
        rate=passage.rate,
        offered=passage.offered,
        processed=processed,
        dropped=passage.offered - processed,
        output_rate=float((processed - 1) / (done[-1] - done[0])) if processed > 1 else None,
        jitter_ms=float(1e3 * np.diff(done).std()) if processed > 2 else None,
        latency_ms=Latency(
            **msgspec.structs.asdict(distribution(latency)),
            first=float(1e3 * latency[0]),
            last=float(1e3 * latency[-1]),
        ),
    )


def work(pushes: Sequence[Spent]) -> dict[str, Distribution]:
    """Figures of each stage in the order of the work, of the rest of a push, and of the whole."""
    stages = list(dict.fromkeys(name for spent in pushes for name in spent if name != WHOLE))
    times = {name: [spent.get(name, 0.0) for spent in pushes] for name in stages}
    whole = wholes(pushes)
    times[OTHER] = [
        total - sum(spent[name] for name in spent if name != WHOLE)
        for total, spent in zip(whole, pushes, strict=True)
    ]
    times[WHOLE] = whole
    return {name: distribution(seconds) for name, seconds in times.items()}


def wholes(pushes: Iterable[Spent]) -> list[float]:
    """Seconds of each push."""
    return [spent[WHOLE] for spent in pushes]


def read_result(path: Path) -> BenchResult:
    """Read a result's file.

    Raises:
        InputError: no file there, or it is not such a result, or of another schema version.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    _check_version(path, content)
    return _decoded(path, content, BenchResult)


class _Versioned(msgspec.Struct):
    schema_version: int
    # Another program's file may well have a version too.
    clip_sha256: str


def _check_version(path: Path, content: bytes) -> None:
    # The version is read first and alone: another schema's fields must not be complained about.
    version = _decoded(path, content, _Versioned).schema_version
    if version != SCHEMA_VERSION:
        remedy = "Update vditrack" if version > SCHEMA_VERSION else "Measure again"
        raise InputError(
            f"{path} has schema version {version}; this vditrack reads {SCHEMA_VERSION}. {remedy}."
        )


_Kind = TypeVar("_Kind")


def _decoded(path: Path, content: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is not a result of `vditrack bench`: {error}. Give a file it wrote with -o."
        ) from error
