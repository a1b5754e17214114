"""The measurement of speed: exact on a clock of its own, sound on the real one."""

import hashlib
import json
import sys
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.commands import run_command
from doubles.passthrough import write_passthrough
from vditrack import InputError, Tracker
from vditrack.bench import gpu, machine
from vditrack.bench.baseline import LucasKanadeStream
from vditrack.bench.camera import CLOCK, Clock, simulate_camera
from vditrack.bench.compare import compare_results
from vditrack.bench.feed import Feed, ping_pong_index
from vditrack.bench.measure import make_grid
from vditrack.bench.result import (
    read_result,
    summarize_camera,
    summarize_durations,
    summarize_stages,
)
from vditrack.bench.search import search_highest_rate
from vditrack.cli.bench import bench
from vditrack.inference import cpu
from vditrack.stage_timing import record_stages, stage
from vditrack.synthetic.layers.clips import render_clip

STAGES = [
    "resize",
    "encoder",
    "transformer",
    "grey",
    "matching",
    "consistency",
    "templates",
]
NO_FRAMES = np.zeros((2, 4, 4, 3), np.uint8)


class Time:
    """Time that passes only when someone sleeps or works."""

    def __init__(self, start=0.0, oversleep=0.0) -> None:
        self.now = start
        self._oversleep = oversleep

    def pass_by(self, seconds) -> None:
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda seconds: self.pass_by(seconds + self._oversleep))


def processed(rate, offered, seconds, time) -> tuple[list[int], object]:
    """Frames processed by work of a known duration."""
    taken = []

    def worked(index):
        taken.append(index)
        time.pass_by(seconds)

    return taken, simulate_camera(rate, offered, worked, time.clock)


def test_slow_work_drops_every_third_frame():
    """Work of 1.5 intervals; in binary fractions, so that every other end meets an arrival."""
    interval = 1 / 32
    taken, passage = processed(32.0, 31, 1.5 * interval, Time(start=8.0))
    assert taken == [i for i in range(31) if i % 3 != 2]
    figures = summarize_camera(passage)
    assert (figures.offered, figures.processed, figures.dropped) == (31, 21, 10)
    assert figures.output_rate == pytest.approx(32 / 1.5)
    assert figures.jitter_ms == pytest.approx(0, abs=1e-9)
    latency = figures.latency_ms
    # A frame that met the end of the work before waited for nothing; the other, half an interval.
    assert latency.first == latency.last == pytest.approx(1500 * interval)
    assert latency.p50 == pytest.approx(1500 * interval)
    assert latency.p95 == latency.p99 == latency.max == pytest.approx(2000 * interval)
    assert latency.mean == pytest.approx((11 * 1500 + 10 * 2000) / 21 * interval)


def test_fast_work_waits_for_each_frame():
    taken, passage = processed(30.0, 90, 0.010, Time(start=123.4))
    assert taken == list(range(90))
    figures = summarize_camera(passage)
    assert figures.dropped == 0
    assert figures.output_rate == pytest.approx(30)
    assert figures.jitter_ms == pytest.approx(0, abs=1e-6)
    for latency in (figures.latency_ms.first, figures.latency_ms.mean, figures.latency_ms.max):
        assert latency == pytest.approx(10)


def queue_of_one(rate, offered, seconds) -> list[int]:
    """The same as events: each arrival overwrites what waits; a worker takes it when it is free."""
    taken, waiting, free = [], None, Fraction(0)
    for index in range(offered):
        arrival = Fraction(index) / rate
        if waiting is not None and free < arrival:
            taken.append(waiting)
            free, waiting = max(free, Fraction(waiting) / rate) + seconds, None
        waiting = index
    if waiting is not None:
        taken.append(waiting)
    return taken


@given(
    rate=st.fractions(min_value=1, max_value=100, max_denominator=12),
    offered=st.integers(1, 60),
    intervals=st.fractions(min_value=Fraction(1, 6), max_value=8, max_denominator=6),
)
def test_the_queue_is_that_of_events(rate, offered, intervals):
    """In exact fractions, where arrivals at the very end of the work are frequent."""
    taken, _ = processed(rate, offered, intervals / rate, Time(start=Fraction(5, 7)))
    assert taken == queue_of_one(rate, offered, intervals / rate)
    assert taken[-1] == offered - 1


def test_oversleeping_costs_frames():
    taken, passage = processed(32.0, 9, 1 / 64, Time(oversleep=1.25 / 32))
    # Frame 0 is there at once; then each wait ends 1.25 intervals late.
    assert taken == [0, 2, 4, 6, 8]
    assert summarize_camera(passage).latency_ms.max == pytest.approx((0.25 + 0.5) * 1e3 / 32)


def test_few_results_have_no_rate_and_no_jitter():
    one = summarize_camera(processed(10.0, 1, 0.5, Time())[1])
    assert (one.output_rate, one.jitter_ms, one.latency_ms.last) == (None, None, 500)
    two = summarize_camera(processed(10.0, 2, 0.05, Time())[1])
    assert two.output_rate == pytest.approx(10)
    assert two.jitter_ms is None


def test_jitter_is_the_deviation_of_intervals():
    durations = iter([0.01, 0.03, 0.01, 0.05])
    time = Time()
    passage = simulate_camera(10.0, 4, lambda _: time.pass_by(next(durations)), time.clock)
    assert summarize_camera(passage).jitter_ms == pytest.approx(np.std([120, 80, 140]))


def test_percentiles():
    times = np.random.default_rng(0).permutation(np.arange(1, 102)) / 1000
    figures = summarize_durations(times)
    assert msgspec.structs.astuple(figures) == pytest.approx((51, 51, 96, 100, 101))
    uneven = np.random.default_rng(1).gamma(2, 0.02, 77)
    p50, p95, p99 = np.quantile(uneven, [0.5, 0.95, 0.99])
    figures = summarize_durations(uneven)
    assert (figures.p50, figures.p95, figures.p99) == pytest.approx(
        (1e3 * p50, 1e3 * p95, 1e3 * p99)
    )


def feed_of(seconds, time) -> Feed:
    """A stream whose pushes take a known time."""
    return Feed(lambda frame, stamp: time.pass_by(seconds), NO_FRAMES, time.clock)


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1])
def test_the_highest_rate_of_constant_work(seconds):
    time, reports = Time(), []
    found = search_highest_rate(
        feed_of(seconds, time), 600 * seconds, lambda *report: reports.append(report)
    )
    assert found.free_rate == pytest.approx(1 / seconds)
    # 5% of frames may go; the bracket ends 0.6 / 32 wide, and a trial of 100 frames hides one drop.
    assert 0.98 / 0.95 / seconds <= found.highest_rate <= 1 / 0.94 / seconds
    assert len(found.trials) == len(reports) == 5
    assert time.now == pytest.approx(600 * seconds, rel=0.03)
    assert {trial.dropped <= 0.05 * trial.offered for trial in found.trials} == {True, False}


def test_the_highest_rate_of_work_that_varies():
    """A push in ten takes five intervals: at its free rate, far more than 5% are dropped."""
    time, count = Time(), iter(range(10**6))
    feed = Feed(
        lambda *_: time.pass_by(0.05 if next(count) % 10 == 0 else 0.01), NO_FRAMES, time.clock
    )
    found = search_highest_rate(feed, 60, lambda *_: None)
    best = max(trial.rate for trial in found.trials if trial.dropped <= 0.05 * trial.offered)
    assert found.highest_rate == best < 0.9 * found.free_rate


def test_a_slow_stream_is_not_searched_for_ever():
    time = Time()
    assert len(search_highest_rate(feed_of(0.5, time), 20, lambda *_: None).trials) == 1
    assert time.now < 1.5 * 20
    time = Time()
    found = search_highest_rate(feed_of(3.0, time), 6, lambda *_: None)
    assert (found.trials, found.highest_rate) == ((), None)
    assert time.now == 3.0


def test_a_feed_goes_there_and_back_and_counts_dropped_frames():
    assert [ping_pong_index(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [ping_pong_index(i, 2) for i in range(4)] == [0, 1, 0, 1]
    pushed, time = [], Time()

    def push(frame, stamp):
        pushed.append((int(frame[0, 0, 0]), stamp))
        time.pass_by(1.5 / 32)

    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    feed = Feed(push, frames, time.clock)
    feed.push_next()
    feed.push_at_rate(32.0, 4 / 32)
    feed.push_unpaced(1.0, limit=2)
    assert pushed == [(0, 0.0), (1, 1.0), (2, 2.0), (2, 4.0), (1, 5.0), (0, 6.0)]


def test_stages_are_heard_only_while_listening():
    outer, inner = [], []

    def one(name):
        with stage(name):
            pass

    one("before")
    with record_stages(lambda *stage_seconds: outer.append(stage_seconds)):
        one("a")
        with record_stages(lambda *stage_seconds: inner.append(stage_seconds)):
            one("b")
        thread = threading.Thread(target=one, args=("elsewhere",))
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="work"), stage("failed"):
            raise ValueError("work")
        one("c")
    one("after")
    assert [name for name, _ in outer] == ["a", "c"]
    assert [name for name, _ in inner] == ["b"]
    assert all(0 <= seconds < 1 for _, seconds in outer + inner)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_passthrough(tmp_path_factory.mktemp("bundle"))


def timed_pushes(tracker, frames, points) -> list[dict]:
    stream = tracker.stream()
    feed = Feed(stream.push, frames, CLOCK)
    feed.push_next()
    stream.add(points)
    return [feed.push_next() for _ in range(14)]


@pytest.mark.parametrize("encoder_frames", [1, 4])
def test_stages_do_not_overlap(tmp_path, encoder_frames):
    tracker = Tracker(write_passthrough(tmp_path, encoder_frames=encoder_frames))
    frames = render_clip(seed=1, height=64, width=96, frames=5).frames
    pushes = timed_pushes(tracker, frames, make_grid(12, 96, 64))
    for spent in pushes:
        assert list(spent) == [*STAGES, "whole"]
        assert sum(spent[name] for name in STAGES) <= spent["whole"]
    figures = summarize_stages(pushes)
    assert list(figures) == [*STAGES, "other", "whole"]
    parts = sum(figures[name].mean for name in [*STAGES, "other"])
    assert parts == pytest.approx(figures["whole"].mean)


def test_stages_account_for_nearly_all_of_a_push():
    frames = render_clip(seed=1, height=480, width=640, frames=3).frames
    figures = summarize_stages(timed_pushes(Tracker.load(), frames, make_grid(64, 640, 480)))
    assert figures["other"].p50 < 0.05 * figures["whole"].p50


@pytest.mark.parametrize(
    ("count", "width", "height"), [(1, 640, 480), (64, 640, 480), (7, 16, 8192), (10_000, 16, 16)]
)
def test_grid(count, width, height):
    points = make_grid(count, width, height)
    assert points.shape == (count, 2)
    assert points.dtype == np.float32
    assert len(np.unique(points, axis=0)) == count
    assert (points > 0).all() and (points < [width, height]).all()


def test_the_baseline_finds_a_shift():
    clip = render_clip(seed=2, height=96, width=128, frames=1, perfect_camera=True).frames[0]
    baseline = LucasKanadeStream(make_grid(20, 128, 96))
    assert baseline.push(clip, 0.0) is None
    assert baseline.push(np.roll(clip, 2, axis=1), 1.0).mean() > 0.7
    noise = np.random.default_rng(0).integers(0, 255, clip.shape, np.uint8)
    assert baseline.push(noise, 2.0).mean() < 0.3


# From the command line, in this process and in one of its own.

SMALL = ["--duration", "1", "--rate", "40", "--size", "96x64", "--points", "10"]


@pytest.fixture(scope="module")
def measured(bundle, tmp_path_factory):
    """A measurement's file and what it printed."""
    path = tmp_path_factory.mktemp("results") / "a.json"
    done = run_command(bench, bundle.root, *SMALL, "-o", path)
    assert done.exit_code == 0, done.exception
    return path, done


def test_a_measurement(measured, bundle):
    path, done = measured
    result = read_result(path)
    figures = result.figures
    assert figures.fixed_rate.offered == 40
    assert figures.fixed_rate.processed + figures.fixed_rate.dropped == 40
    assert list(figures.work_ms) == [*STAGES, "other", "whole"]
    assert figures.latents == figures.fixed_rate.processed
    assert figures.networks_ms.mean < figures.work_ms["whole"].mean
    assert figures.warm_up_frames == 20
    assert figures.times_of_klt == figures.work_ms["whole"].mean / figures.klt_ms.mean
    assert figures.memory_mib.peak >= figures.memory_mib.peak_before_load > 20
    assert {trial.rate for trial in result.trials} >= {figures.highest_rate} - {None}
    for row in (*STAGES, "other", "whole", "latency from arrival", "Lucas-Kanade", "passthrough"):
        assert row in done.stdout
    assert "a camera of 40 frames per second" in done.output


def test_a_measurement_says_what_was_measured(measured, bundle):
    result = read_result(measured[0])
    manifest = (bundle.root / "bundle.json").read_bytes()
    assert result.bundle.sha256 == hashlib.sha256(manifest).hexdigest()
    clip = render_clip(seed=0, height=64, width=96, frames=24).frames
    assert result.clip_sha256 == hashlib.sha256(clip.tobytes()).hexdigest()
    assert result.backend == "cpu"
    assert set(result.versions) == {"python", "vditrack", "numpy", "opencv", "onnxruntime"}
    assert result.versions["numpy"] == np.__version__
    assert result.machine.cores == len(psutil.Process().cpu_affinity())
    assert result.machine.memory_gib == pytest.approx(
        psutil.virtual_memory().total / 2**30, abs=0.1
    )
    assert datetime.fromisoformat(result.date).utcoffset() == timedelta(0)
    assert msgspec.structs.astuple(result.settings) == (40.0, 1.0, 10, 96, 64)


@pytest.mark.slow
def test_as_a_user_runs_it(bundle, tmp_path, spawn_vditrack, run_vditrack):
    done = spawn_vditrack("bench", bundle.root, *SMALL, "--json", "-o", "out/r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "out" / "r.json").read_text())
    # In a new process the engine itself has to be loaded.
    assert result["figures"]["first_result_ms"] > 2 * result["figures"]["work_ms"]["whole"]["mean"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.json"]
    small = ("--duration", "1", "--size", "32x32")
    refused = run_vditrack("bench", "nowhere", *small, "-o", "r.json", cwd=tmp_path)
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if line.startswith("vditrack:")]
    assert len(lines) == 1
    assert "no bundle at nowhere" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_the_bundled_model(tmp_path, spawn_vditrack):
    done = spawn_vditrack("bench", "--duration", "3", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bundle"]["name"] == "tiny"
    stages = {"encoder", "transformer", "flow", "patches", "recovery", "visibility", "whole"}
    assert stages < set(result["figures"]["work_ms"])
    fixed = result["figures"]["fixed_rate"]
    assert fixed["processed"] + fixed["dropped"] == fixed["offered"] == 90


def test_a_result_with_itself(measured):
    result = msgspec.structs.replace(read_result(measured[0]), load_average=0.0)
    comparison = compare_results(result, result)
    assert comparison.warnings == ()
    ratios = {row.figure: row.ratio for row in comparison.rows if row.a}
    assert set(ratios.values()) == {1.0}
    assert {"work_ms whole p99", "fixed_rate latency_ms first", "memory_mib peak"} <= set(ratios)
    assert next(row for row in comparison.rows if row.figure == "memory_mib gpu").ratio is None


@pytest.fixture
def other(measured, tmp_path):
    """The file of a result that differs in everything that can."""
    result = read_result(measured[0])
    replace = msgspec.structs.replace
    figures = replace(result.figures, free_rate=2 * result.figures.free_rate, highest_rate=None)
    changed = replace(
        result,
        figures=figures,
        machine=replace(result.machine, cpu="Abacus [7]", cores=3),
        load_average=2.5,
        versions={**result.versions, "numpy": "0.1"},
        bundle=replace(result.bundle, name="large"),
        clip_sha256="0" * 64,
        settings=replace(result.settings, points=11),
    )
    path = tmp_path / "b.json"
    path.write_bytes(msgspec.json.encode(changed))
    return path


def test_results_that_differ(measured, other, tmp_path):
    saved = tmp_path / "comparison.json"
    done = run_command(bench, "--compare", measured[0], other, "-o", saved)
    assert done.exit_code == 0, done.exception
    cpu = read_result(measured[0]).machine.cpu
    assert f"not the same machine: cpu {cpu} and Abacus [7]; cores" in done.stdout
    assert f"not the same versions: numpy {np.__version__} and 0.1\n" in done.stdout
    assert "not the same bundle: name passthrough and large\n" in done.stdout
    assert "not the same clip: sha256" in done.stdout
    assert "not the same settings: points 10 and 11\n" in done.stdout
    assert "B: the machine was busy at the start: load average 2.50 on 3 cores" in done.stdout
    printed = run_command(bench, "--compare", measured[0], other, "--json")
    assert json.loads(printed.stdout) == json.loads(saved.read_text())
    rows = {row["figure"]: row for row in json.loads(printed.stdout)["rows"]}
    assert rows["free_rate"]["ratio"] == 2
    assert rows["highest_rate"]["b"] is rows["highest_rate"]["ratio"] is None


@dataclass(frozen=True)
class Mistake:
    """Arguments, and what the refusal must say."""

    arguments: list[str]
    message: str


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake(["--size", "640"], "--size 640 is not WIDTHxHEIGHT"),
        Mistake(["--size", "15x480"], "16 to 8192"),
        Mistake(["--size", "640x8193"], "16 to 8192"),
        Mistake(["--rate", "0"], "--rate 0 is not in"),
        Mistake(["--rate", "1000.5"], "--rate 1000.5 is not in"),
        Mistake(["--rate", "nan"], "--rate nan is not in"),
        Mistake(["--duration", "0.9"], "--duration 0.9 is not"),
        Mistake(["--duration", "inf"], "--duration inf is not"),
        Mistake(["--points", "0"], "--points 0 is not in 1 to 10000"),
        Mistake(["--points", "10001"], "--points 10001 is not in 1 to 10000"),
        Mistake(["-o", "."], r"\. is a folder"),
        Mistake(["-o", "text.json/r.json"], "cannot write in .*text.json"),
        Mistake(["bundle", "--compare", "a.json", "b.json"], "--compare takes no bundle"),
        Mistake(["--compare", "absent.json", "a.json"], "absent.json cannot be read: No such file"),
        Mistake(
            ["--compare", "a.json", "text.json"], "text.json is not a result of `vditrack bench`"
        ),
        Mistake(["--compare", "a.json", "manifest.json"], "manifest.json is not a result"),
        Mistake(["--compare", "a.json", "newer.json"], "newer.json has schema version 3; .*Update"),
        Mistake(["--compare", "older.json", "a.json"], "older.json has schema version 0; .*again"),
        Mistake(["--compare", "a.json", "less.json"], "less.json is not a result.*figures"),
    ],
)
def test_a_mistake_is_refused(mistake, measured, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = json.loads(measured[0].read_text())
    files = {
        "a.json": result,
        "newer.json": {**result, "schema_version": 3, "more": 1},
        "older.json": {**result, "schema_version": 0},
        "less.json": {name: value for name, value in result.items() if name != "figures"},
        "manifest.json": json.loads((bundle.root / "bundle.json").read_text()),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("not JSON")
    before = sorted(tmp_path.iterdir())
    done = run_command(bench, *mistake.arguments)
    assert isinstance(done.exception, InputError), (done.exception, done.output)
    with pytest.raises(InputError, match=mistake.message):
        raise done.exception
    assert sorted(tmp_path.iterdir()) == before


# The machine.


def test_peak_memory_is_in_mib():
    before = machine.read_peak_memory_mib()
    assert before >= 0.99 * psutil.Process().memory_info().rss / 2**20
    room = np.ones(200 * 2**17)
    assert machine.read_peak_memory_mib() >= 0.99 * psutil.Process().memory_info().rss / 2**20
    assert room.nbytes == 200 * 2**20
    assert machine.read_peak_memory_mib() <= before + 210


def test_the_limit_of_a_container(monkeypatch):
    files = {"/proc/device-tree/model": "Orin Nano\0", "/sys/fs/cgroup/cpu.max": "150000 100000"}
    monkeypatch.setattr(machine, "_read_text", files.get)
    monkeypatch.setattr(cpu, "_read", lambda path: files.get(str(path), ""))
    read = machine.read_machine()
    assert (read.cpu, read.cpu_limit, read.governor) == ("Orin Nano", 1.5, None)
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    files["/proc/cpuinfo"] = "processor\t: 0\nmodel name\t: Abacus: the second\n"
    read = machine.read_machine()
    assert (read.cpu, read.cpu_limit) == ("Abacus: the second", None)


def test_a_busy_machine_is_warned_of():
    four = msgspec.structs.replace(machine.read_machine(), cores=4)
    assert machine.format_load_warning(four, 0.99) is None
    assert "load average 1.00 on 4 cores" in machine.format_load_warning(four, 1.0)


class NvmlError(Exception):
    """As the library's own base class."""


def nvml(processes, init=lambda: None) -> SimpleNamespace:
    """A library with two GPUs, that tells which processes use how many bytes of each."""

    def running(device):
        if processes is None:
            raise NvmlError("not supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes[device]]

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda device: f"GPU {device}",
        nvmlDeviceGetComputeRunningProcesses=running,
    )


def test_gpu_memory_is_that_of_this_process(monkeypatch):
    own = psutil.Process().pid

    def memory(library) -> float | None:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return gpu.read_gpu_memory_mib()

    processes = [[(own, 3 * 2**20), (own + 1, 2**30)], [(own, 2**19)]]
    assert memory(nvml(processes)) == 3.5
    assert gpu.read_gpu_names() == ("GPU 0", "GPU 1")
    assert memory(nvml([[(own + 1, 2**30)], []])) is None
    assert memory(nvml([[(own, None)], []])) is None
    assert memory(nvml(None)) is None

    def no_driver():
        raise NvmlError("driver not loaded")

    assert memory(nvml(processes, no_driver)) is None
    assert gpu.read_gpu_names() == ()
    assert memory(None) is None
