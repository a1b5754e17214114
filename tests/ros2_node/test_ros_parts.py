"""What the node decides without ROS: which images count, which points live, what is told."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from doubles.ros_loopback import camera_info
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.calibration import Calibration
from vditrack_ros.camera.image_gate import ImageGate, Verdict
from vditrack_ros.camera.subscription import count_skipped_messages
from vditrack_ros.counters import ImageCounters, Timing
from vditrack_ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    CameraState,
    build_camera_report,
    measure_resident_memory,
    summarize_points,
)
from vditrack_ros.parameters import PARAMETERS, build_settings
from vditrack_ros.points.population import (
    Population,
    RequestResult,
    choose_grid_points,
    detect_corners,
)
from vditrack_ros.points.publishers import compute_ray_velocities
from vditrack_ros.points.requests import read_clicked_pixel, read_pixels

SETTINGS = build_settings({parameter.name: parameter.default for parameter in PARAMETERS})
SIZE = (120, 160)
QUALITY = 0.01
NOBODY = np.zeros((0, 2), np.float32)


def judge(gate, seconds, age=0.0, max_age=0.5, max_gap=2.0):
    return gate.check(
        round(seconds * NANOSECONDS_PER_SECOND),
        round(age * NANOSECONDS_PER_SECOND),
        max_age,
        max_gap,
    )


def test_images_in_order_are_taken():
    gate = ImageGate()
    assert [judge(gate, t) for t in (5, 5.03, 5.06)] == [Verdict.ACCEPTED] * 3


def test_images_by_their_stamps():
    gate = ImageGate()
    stamps = [5, 5, 5.1, 5.05, 5.06, 7.07, 7.07, 7.08]
    took, again, back, gap = (
        Verdict.ACCEPTED,
        Verdict.REPEATED,
        Verdict.CLOCK_WENT_BACK,
        Verdict.AFTER_GAP,
    )
    expected = [took, again, took, back, took, gap, again, took]
    assert [judge(gate, t) for t in stamps] == expected


def test_stamps_that_a_float_would_merge():
    gate = ImageGate()
    epoch = 1_700_000_000 * NANOSECONDS_PER_SECOND
    verdicts = [gate.check(epoch + n, 0, 0.5, 2.0) for n in (0, 1, 1)]
    assert verdicts == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.REPEATED]


def test_old_images_are_no_images():
    gate = ImageGate()
    assert judge(gate, 5) is Verdict.ACCEPTED
    assert judge(gate, 4, age=0.6) is Verdict.TOO_OLD
    # It was not taken, so the clock has not gone back.
    assert judge(gate, 5.03, age=0.4) is Verdict.ACCEPTED
    assert judge(gate, 5.06, age=1e6, max_age=0) is Verdict.ACCEPTED
    # Of a camera whose clock is ahead.
    assert judge(gate, 5.09, age=-9) is Verdict.ACCEPTED


@pytest.mark.parametrize("wanted", [1, 2, 7, 64, 500])
def test_grid_is_even(wanted):
    points = choose_grid_points(SIZE, wanted, wanted, NOBODY)
    assert len(np.unique(points, axis=0)) == wanted
    assert (points > 0).all() and (points < (160, 120)).all()
    fair = np.sqrt(SIZE[0] * SIZE[1] / wanted)
    corners = np.stack(np.meshgrid(np.arange(2, 160, 4), np.arange(2, 120, 4)), -1).reshape(-1, 2)
    # No place of the picture is far from a point.
    assert np.linalg.norm(corners[:, None] - points, axis=2).min(axis=1).max() < 2 * fair


def test_grid_fills_what_is_free():
    whole = choose_grid_points(SIZE, 64, 64, NOBODY)
    kept = np.delete(whole, [3, 40], axis=0)
    added = choose_grid_points(SIZE, 2, 64, kept)
    assert np.linalg.norm(added[:, None] - kept, axis=2).min() > 10


def test_corners_are_found_where_they_are():
    # Squares with corners known; the grey in between has none.
    frame = np.full((*SIZE, 3), 90, np.uint8)
    for left, top in ((30, 30), (100, 60)):
        frame[top : top + 20, left : left + 20] = 220
    true = np.array(
        [(x + dx, y + dy) for x, y in ((30, 30), (100, 60)) for dx in (0, 20) for dy in (0, 20)]
    )
    found = detect_corners(frame, 20, 64, NOBODY, QUALITY)
    assert len(found) == 8
    assert np.linalg.norm(found[:, None] - true, axis=2).min(axis=1).max() < 1.5
    # Away from the living.
    rest = detect_corners(frame, 20, 64, found[:3], QUALITY)
    assert len(rest) == 5
    assert len(detect_corners(np.full((*SIZE, 3), 90, np.uint8), 20, 64, NOBODY, QUALITY)) == 0


class Stream:
    """Stands in for a live stream: points stay where they were put."""

    def __init__(self):
        self.ids, self.points = np.zeros(0, np.int64), NOBODY
        self._next = 0

    def add(self, points):
        ids = self._next + np.arange(len(points))
        self._next += len(points)
        self.ids = np.concatenate([self.ids, ids])
        self.points = np.concatenate([self.points, points])
        return ids

    def remove(self, ids):
        assert np.isin(ids, self.ids).all()
        kept = ~np.isin(self.ids, ids)
        self.ids, self.points = self.ids[kept], self.points[kept]

    def update(self, stamp, hidden=()):
        count = len(self.ids)
        return LiveUpdate(
            stamp=stamp,
            ids=self.ids,
            points=self.points,
            visible=~np.isin(self.ids, hidden),
            confidence=np.ones(count, np.float32),
            forward_backward_error=np.zeros(count, np.float32),
            age=np.zeros(count, np.int64),
            seconds_since_model=np.zeros(count, np.float32),
            bridged=False,
        )


FRAME = np.zeros((*SIZE, 3), np.uint8)


def run(stream, population, start, seconds, settings, hidden=()):
    for stamp in start + np.arange(0, seconds, 0.1):
        population.update(FRAME, stream.update(stamp, hidden), settings)


def test_as_many_live_as_wanted():
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, SETTINGS)
    assert len(stream.ids) == 64
    few = replace(SETTINGS, points=10)
    run(stream, population, 1, 1, few)
    assert len(stream.ids) == 10
    run(stream, population, 2, 1, replace(few, population="none"))
    assert len(stream.ids) == 0


def test_lost_points_are_replaced_in_time():
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, SETTINGS)
    hidden = stream.ids[:5].copy()
    run(stream, population, 1, 0.9, SETTINGS, hidden)
    assert np.isin(hidden, stream.ids).all()
    run(stream, population, 1.9, 0.5, SETTINGS, hidden)
    assert not np.isin(hidden, stream.ids).any()
    assert len(stream.ids) == 64
    # Ids are not used again.
    assert stream.ids.max() == 68


def test_points_outside_are_replaced_at_once():
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, SETTINGS)
    gone = stream.ids[7]
    stream.points[7] = (-3, 10)
    run(stream, population, 1, 0.4, SETTINGS)
    assert gone not in stream.ids and len(stream.ids) == 64


def test_points_asked_for_stay():
    stream = Stream()
    population = Population(stream)
    assert population.add_requested(np.array([[1, 1]], np.float32), SETTINGS) is None
    run(stream, population, 0, 1, SETTINGS)
    asked = np.array([[5, 5], [200, 5], [np.nan, 5], [7, 7]], np.float32)
    assert population.add_requested(asked, SETTINGS) == RequestResult(added=2, outside=2, refused=0)
    mine = stream.ids[-2:].copy()
    run(stream, population, 1, 3, SETTINGS, hidden=mine)
    assert np.isin(mine, stream.ids).all()
    # Beside those that nobody asked for.
    assert len(stream.ids) == 66 and population.requested_count == 2


def test_room_is_made_for_points_asked_for():
    stream = Stream()
    population = Population(stream)
    tight = replace(SETTINGS, points=4, max_points=6)
    run(stream, population, 0, 1, tight)
    asked = np.array([[x, 5] for x in range(10, 50, 10)], np.float32)
    assert population.add_requested(asked, tight).added == 4
    first = stream.ids[-4:].copy()
    run(stream, population, 1, 1, tight, hidden=first[:1])
    assert len(stream.ids) == 6 and np.isin(first, stream.ids).all()
    assert population.add_requested(asked, tight) == RequestResult(added=3, outside=0, refused=1)
    # One that is not seen made way, those seen did not.
    assert np.isin(first, stream.ids).tolist() == [False, True, True, True]


def cloud(points, names="xy", kind="<f4", datatype=7, big=False, padding=0):
    row = np.dtype([(name, kind) for name in names] + [("more", f"V{padding}")] * bool(padding))
    rows = np.zeros(len(points), row)
    for name, column in zip(names, np.transpose(points), strict=False):
        rows[name] = column
    fields = [
        SimpleNamespace(name=name, offset=row.fields[name][1], datatype=datatype) for name in names
    ]
    return SimpleNamespace(
        fields=fields,
        is_bigendian=big,
        height=1,
        width=len(rows),
        point_step=row.itemsize,
        row_step=rows.nbytes,
        data=rows.tobytes(),
    )


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"names": "uv"},
        {"kind": ">f8", "datatype": 8, "big": True},
        {"kind": "<u2", "datatype": 4, "padding": 5},
    ],
)
def test_clouds_of_pixels(form):
    points = [[1, 2], [30, 40], [5, 6]]
    np.testing.assert_array_equal(read_pixels(cloud(points, **form)), points)


def test_pixels_come_before_places_in_space():
    np.testing.assert_array_equal(read_pixels(cloud([[1, 2, 3, 4]], names="xyuv")), [[3, 4]])


def test_clouds_that_cannot_be_read():
    with pytest.raises(InputError, match="fields a, b"):
        read_pixels(cloud([[1, 2]], names="ab"))
    short = cloud([[1, 2], [3, 4]])
    short.data = short.data[:-1]
    with pytest.raises(InputError, match="layout"):
        read_pixels(short)


def click(x, y, z, frame_id=""):
    return SimpleNamespace(
        point=SimpleNamespace(x=x, y=y, z=z), header=SimpleNamespace(frame_id=frame_id)
    )


def test_clicks_in_pixels_and_in_space():
    camera = Camera.from_info(camera_info(SIZE, focal=100.0))
    np.testing.assert_array_equal(
        read_clicked_pixel(click(3, 4, 0, "map"), None, "camera"), [[3, 4]]
    )
    # On the axis, and at 45 degrees to its right.
    for x, expected in ((0.0, [80, 60]), (0.5, [130, 60])):
        found = read_clicked_pixel(click(x, 0.0, 1.0, "camera"), camera, "camera")
        np.testing.assert_allclose(found, [expected], atol=1e-4)
    for wrong, known, told in (
        (click(0.0, 0.0, 1.0, "map"), camera, "frame 'map'"),
        (click(0.0, 0.0, 1.0), None, "camera_info"),
        (click(0.0, 0.0, -1.0), camera, "behind"),
    ):
        with pytest.raises(InputError, match=told):
            read_clicked_pixel(wrong, known, "camera")


def test_velocities_of_rays():
    def update(stamp, ids, visible):
        ids = np.array(ids)
        return SimpleNamespace(stamp=stamp, ids=ids, visible=np.array(visible))

    before = update(1.0, [1, 2, 4, 5], [True, False, True, True])
    rays_before = np.array([[0, 0], [0, 0], [1, 1], [np.nan, 0]], np.float32)
    now = update(1.5, [1, 2, 3, 4, 5], [True] * 5)
    rays = np.array([[0.1, 0.2], [1, 1], [1, 1], [1, 0.5], [0, 0]], np.float32)
    expected = [[0.2, 0.4], [0, 0], [0, 0], [0, -1], [0, 0]]
    found = compute_ray_velocities((before, rays_before), now, rays)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not compute_ray_velocities(None, now, rays).any()


def test_messages_skipped():
    def info(number, gid=b"a"):
        return {"publication_sequence_number": number, "publisher_gid": {"data": gid}}

    last, skipped = count_skipped_messages(info(5), None)
    assert skipped == 0
    last, skipped = count_skipped_messages(info(6), last)
    assert skipped == 0
    last, skipped = count_skipped_messages(info(9), last)
    assert skipped == 2
    # Another publisher, or one that started anew, counts for itself.
    last, skipped = count_skipped_messages(info(90, b"b"), last)
    assert skipped == 0
    assert count_skipped_messages(info(3, b"b"), last)[1] == 0
    assert count_skipped_messages({"source_timestamp": 1}, last) == (None, 0)


class Log:
    def __init__(self):
        self.warnings = []

    def warning(self, text, **_):
        self.warnings.append(text)


def depth_message(stamp, metres, size=SIZE):
    data = np.full(size, metres, "<f4").tobytes()
    return SimpleNamespace(
        header=SimpleNamespace(
            stamp=SimpleNamespace(sec=0, nanosec=round(stamp * NANOSECONDS_PER_SECOND))
        ),
        height=size[0],
        width=size[1],
        encoding="32FC1",
        is_bigendian=0,
        step=4 * size[1],
        data=data,
    )


def test_depth_belongs_to_images_of_its_time_and_size():
    log = Log()
    calibration = Calibration(log)
    at = SimpleNamespace(sec=0, nanosec=NANOSECONDS_PER_SECOND // 2)
    assert calibration.depth_for(at, SIZE, 0.05) is None
    calibration.update_depth(depth_message(0.46, 2.0))
    assert (calibration.depth_for(at, SIZE, 0.05) == 2).all()
    assert calibration.depth_for(at, SIZE, 0.03) is None
    assert calibration.depth_for(at, (240, 320), 0.05) is None
    assert "aligned" in log.warnings[-1]
    broken = depth_message(0.5, 2.0)
    broken.encoding = "rgb8"
    calibration.update_depth(broken)
    assert calibration.depth_for(at, SIZE, 0.05) is None and "rgb8" in log.warnings[-1]


def test_calibration_belongs_to_images_of_its_size():
    log = Log()
    calibration = Calibration(log)
    assert calibration.camera_for(SIZE) is None
    calibration.update_camera_info(camera_info(SIZE, 100.0))
    known = calibration.camera_for(SIZE)
    calibration.update_camera_info(camera_info(SIZE, 100.0, stamp=NANOSECONDS_PER_SECOND))
    assert calibration.camera_for(SIZE) is known
    calibration.update_camera_info(camera_info(SIZE, 200.0))
    assert calibration.camera_for(SIZE) is not known
    assert calibration.camera_for((480, 640)) is None and "160 x 120" in log.warnings[-1]
    halved = camera_info((240, 320), 100.0)
    halved.binning_x = halved.binning_y = 2
    calibration.update_camera_info(halved)
    assert calibration.camera_for(SIZE) is not None
    calibration.update_camera_info(camera_info(SIZE, 0.0))
    assert calibration.camera_for(SIZE) is None


STATE = CameraState("/image", publishers=1, paused=False)
POINTS = summarize_points(alive=64, visible=60, model_rate=15.0)


def counted(rate=30.0, seconds=10.0, latency=0.02, last=None):
    counts = ImageCounters(started=0.0)
    latencies = latency if callable(latency) else lambda _: latency
    for n, now in enumerate(np.arange(0, seconds, 1 / rate)):
        counts.count_image(now)
        counts.count_result(now, Timing(latencies(n), decode=0.001, track=0.01, publish=0.002))
    return counts


def test_all_is_well():
    report = build_camera_report(counted(), STATE, POINTS, SETTINGS, 10.0)
    assert report.level == OK
    values = report.values
    assert values["rate in (Hz)"] == values["rate out (Hz)"] == "30.0"
    assert values["rate described by the model (Hz)"] == "15.0"
    assert values["overhead (ms)"] == "3.0"
    assert (values["points alive"], values["points visible"]) == ("64", "60")


def test_percentiles_of_latency():
    # Of 300 images, 2 in 100 are late.
    counts = counted(latency=lambda n: 0.4 if n % 50 == 0 else 0.02)
    report = build_camera_report(counts, STATE, POINTS, SETTINGS, 10.0)
    latencies = [report.values[f"latency p{q} (ms)"] for q in (50, 95, 99)]
    assert latencies == ["20.0", "20.0", "400.0"]


@pytest.mark.parametrize(
    ("latency", "level", "told"),
    [(0.15, WARN, "150.0 ms"), (0.7, ERROR, "700.0 ms"), (-0.2, WARN, "ahead")],
)
def test_slow_or_ahead(latency, level, told):
    report = build_camera_report(counted(latency=latency), STATE, POINTS, SETTINGS, 10.0)
    assert report.level == level and told in report.message


def test_silence():
    counts = counted(seconds=5.0)
    assert build_camera_report(counts, STATE, POINTS, SETTINGS, 5.9).level == OK
    report = build_camera_report(counts, STATE, POINTS, SETTINGS, 8.0)
    assert report.level == ERROR and "No image for 3 s" in report.message
    nobody = replace(STATE, publishers=0)
    assert (
        "/image has no publisher"
        in build_camera_report(counts, nobody, POINTS, SETTINGS, 8.0).message
    )
    paused = build_camera_report(counts, replace(STATE, paused=True), POINTS, SETTINGS, 8.0)
    assert (paused.level, paused.message) == (OK, "Paused.")
    assert build_camera_report(ImageCounters(started=0.0), STATE, POINTS, SETTINGS, 0.5).level == OK
    assert (
        build_camera_report(ImageCounters(started=0.0), STATE, POINTS, SETTINGS, 1.5).level == ERROR
    )


def test_losses():
    counts = counted()
    counts.count_drops(9.0, "overtaken", 30)
    assert build_camera_report(counts, STATE, POINTS, SETTINGS, 10.0).level == OK
    counts.count_drops(9.0, "malformed", 10)
    counts.last_error = "an image is cut short."
    report = build_camera_report(counts, STATE, POINTS, SETTINGS, 10.0)
    assert report.level == WARN
    assert "40 of 330 images" in report.message and "cut short" in report.message
    # Long past, they count in total only.
    report = build_camera_report(counted(seconds=25.0), STATE, POINTS, SETTINGS, 25.0)
    assert report.level == OK
    later = build_camera_report(counts, STATE, POINTS, SETTINGS, 25.0)
    assert later.values["dropped, overtaken"] == "30"


def test_failing():
    counts = counted()
    counts.count_drops(9.0, "failed")
    counts.last_error = "RuntimeError: out of memory"
    report = build_camera_report(counts, STATE, POINTS, SETTINGS, 10.0)
    assert report.level == ERROR and "out of memory" in report.message


def test_memory_is_measured():
    before = measure_resident_memory()
    block = np.ones(20_000_000)
    assert 140e6 < measure_resident_memory() - before < 200e6
    del block


def test_corners_agree_with_the_convention():
    # A bright pixel's corner neighbourhood is symmetric about its centre: at +0.5.
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[20, 10] = 255
    frame = cv2.GaussianBlur(frame, (0, 0), 2.0)
    found = detect_corners(frame, 1, 4, NOBODY, QUALITY)
    np.testing.assert_array_equal(found, [[10.5, 20.5]])
