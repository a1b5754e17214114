"""The result of a measurement: the content of its JSON file, computed from raw times."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from vditrack.bench.camera import FrameTimes
from vditrack.bench.feed import WHOLE, StageSeconds
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

SCHEMA_VERSION = 2
OTHER = "other"
"""Name of the time that a push spends outside of its stages."""
_NETWORKS = ("encoder", "transformer")
"""Stages that run where a frame completes a latent."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations in milliseconds; percentiles are interpolated linearly, as in numpy."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class Latency(Distribution, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time from when a frame was due to its result, in ms, over the processed frames."""

    first: float
    """Latency of the first processed frame."""
    last: float
    """Latency of the last processed frame."""


class CameraRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run behind a camera of a fixed rate, with a queue of one frame."""

    rate: float
    """Frames per second that the camera offered."""
    offered: int
    """Number of frames."""
    processed: int
    dropped: int
    output_rate: float | None
    """Results per second from the first to the last; null for fewer than two."""
    jitter_ms: float | None
    """Standard deviation of the time between results; null for fewer than three."""
    latency_ms: Latency


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory of the process, in MiB (2^20 bytes)."""

    peak_before_load: float
    """Peak resident memory before the tracker was loaded: Python and the clip."""
    peak: float
    """Peak resident memory at the end of the fixed rate (getrusage; on Linux this is VmHWM)."""
    gpu: float | None
    """Memory used on all GPUs, by NVML; null without NVML or where it does not report it."""


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures measured."""

    first_result_ms: float
    """Time from the start of loading to the first positions: load, push, add the points, push."""
    warm_up_frames: int
    warm_up_ms: Distribution
    """Pushes after the first result, which all other figures leave out."""
    work_ms: dict[str, Distribution]
    """Time of a push at the fixed rate, by stage, then ``other`` and ``whole``. A stage takes
    no time in a frame that it does not run in."""
    latents: int
    """Latents that the networks described at the fixed rate, of the processed frames."""
    networks_ms: Distribution | None
    """Time of encoder and transformer in a frame that the transformer runs in; null if there was
    none."""
    fixed_rate: CameraRun
    free_rate: float
    """Frames per second if each frame is pushed as soon as the one before is done."""
    highest_rate: float | None
    """Highest rate tried at which at most 5% of the frames were dropped; null if there is none."""
    klt_ms: Distribution
    """OpenCV's pyramidal Lucas-Kanade, forward and backward, on the same frames and points."""
    times_of_klt: float
    """Mean time of the whole push divided by the mean time of Lucas-Kanade."""
    memory_mib: Memory


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of the measurement."""

    rate: float
    """Frames per second of the camera."""
    duration: float
    """Seconds at the fixed rate; the search for the highest rate takes as long again."""
    points: int
    """Number of points tracked."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine of the measurement."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    cpu_limit: float | None
    """CPU quota of the container, in cores; null without one."""
    memory_gib: float
    system: str
    governor: str | None
    """CPU frequency governor of the first core; null where it cannot be read."""
    gpus: tuple[str, ...]


class BundleIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bundle that was measured."""

    name: str
    sha256: str
    """Digest of ``bundle.json``, which holds the digests of the other files."""


class BenchResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of ``vditrack bench``: the content of its JSON file."""

    schema_version: int
    date: str
    """UTC, ISO 8601."""
    machine: Machine
    load_average: float
    """Load average of the minute before the start."""
    versions: dict[str, str]
    backend: str
    bundle: BundleIdentity
    clip_sha256: str
    settings: Settings
    figures: Figures
    trials: tuple[CameraRun, ...]
    """Trials of the search for the highest rate, in order."""


def summarize_durations(seconds: ArrayLike) -> Distribution:
    """Return the distribution of durations [N], given in seconds."""
    milliseconds = 1e3 * np.asarray(seconds, np.float64)
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    mean, largest = float(milliseconds.mean()), float(milliseconds.max())
    return Distribution(mean=mean, p50=p50, p95=p95, p99=p99, max=largest)


def summarize_camera(times: FrameTimes) -> CameraRun:
    """Return the figures of a run behind a camera, named as in ros2_benchmark.

    Two definitions differ from ros2_benchmark: it counts one frame more in the output rate, and its
    jitter is the mean change between consecutive intervals.
    """
    done, processed = times.done, len(times.done)
    latency = done - times.arrived
    return CameraRun(
        rate=times.rate,
        offered=times.offered,
        processed=processed,
        dropped=times.offered - processed,
        output_rate=float((processed - 1) / (done[-1] - done[0])) if processed > 1 else None,
        jitter_ms=float(1e3 * np.diff(done).std()) if processed > 2 else None,
        latency_ms=Latency(
            **msgspec.structs.asdict(summarize_durations(latency)),
            first=float(1e3 * latency[0]),
            last=float(1e3 * latency[-1]),
        ),
    )


def summarize_stages(pushes: Sequence[StageSeconds]) -> dict[str, Distribution]:
    """Return the distribution of each stage in the order of work, then ``other`` and ``whole``."""
    stages = list(dict.fromkeys(name for spent in pushes for name in spent if name != WHOLE))
    times = {name: [spent.get(name, 0.0) for spent in pushes] for name in stages}
    whole = seconds_of_pushes(pushes)
    times[OTHER] = [
        total - sum(spent[name] for name in spent if name != WHOLE)
        for total, spent in zip(whole, pushes, strict=True)
    ]
    times[WHOLE] = whole
    return {name: summarize_durations(seconds) for name, seconds in times.items()}


def summarize_networks(pushes: Sequence[StageSeconds]) -> tuple[int, Distribution | None]:
    """Return how often the transformer ran, and the time of the networks in those pushes."""
    seconds = [
        sum(spent.get(name, 0.0) for name in _NETWORKS)
        for spent in pushes
        if "transformer" in spent
    ]
    return len(seconds), summarize_durations(seconds) if seconds else None


def seconds_of_pushes(pushes: Iterable[StageSeconds]) -> list[float]:
    """Return the seconds that each push took as a whole."""
    return [spent[WHOLE] for spent in pushes]


def read_result(path: Path) -> BenchResult:
    """Read the file of a result.

    Raises:
        InputError: The file cannot be read, is not a result, or has another schema version.

    """
    try:
        content = read_file(path, MAX_JSON_SIZE)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    _check_version(path, content)
    return _decode(path, content, BenchResult)


class _Versioned(msgspec.Struct):
    """The fields that tell a result of any schema version from other JSON files."""

    schema_version: int
    # Files of other programs may have a schema version too.
    clip_sha256: str


def _check_version(path: Path, content: bytes) -> None:
    # Read the version alone first, so that the error is not about a field of another schema.
    version = _decode(path, content, _Versioned).schema_version
    if version != SCHEMA_VERSION:
        remedy = "Update vditrack" if version > SCHEMA_VERSION else "Measure again"
        raise InputError(
            f"{path} has schema version {version}; this vditrack reads {SCHEMA_VERSION}. {remedy}."
        )


_Kind = TypeVar("_Kind")


def _decode(path: Path, content: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return decode_json(content, kind)
    except MalformedError as error:
        raise InputError(
            f"{path} is not a result of `vditrack bench`: {error}. Give a file written with -o."
        ) from error
