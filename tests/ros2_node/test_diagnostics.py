"""Diagnostics of a camera."""

from dataclasses import replace

import numpy as np
import pytest

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

STATE = CameraState("/image", publishers=1, paused=False, reliable=True, loss_remedy="Do this.")
POINTS = summarize_points(alive=64, visible=60, model_rate=15.0)


def counted(rate=30.0, seconds=10.0, latency=0.02, last=None):
    counts = ImageCounters(started=0.0)
    latencies = latency if callable(latency) else lambda _: latency
    for n, now in enumerate(np.arange(0, seconds, 1 / rate)):
        counts.count_image(now)
        counts.count_result(now, Timing(latencies(n), decode=0.001, track=0.01, publish=0.002))
    return counts


def test_all_is_well(settings):
    report = build_camera_report(counted(), STATE, POINTS, settings, 10.0)
    assert report.level == OK
    values = report.values
    assert values["rate in (Hz)"] == values["rate out (Hz)"] == "30.0"
    assert values["rate described by the model (Hz)"] == "15.0"
    assert values["overhead (ms)"] == "3.0"
    assert (values["points alive"], values["points visible"]) == ("64", "60")


def test_percentiles_of_latency(settings):
    # Of 300 images, 2 in 100 are late.
    counts = counted(latency=lambda n: 0.4 if n % 50 == 0 else 0.02)
    report = build_camera_report(counts, STATE, POINTS, settings, 10.0)
    latencies = [report.values[f"latency p{q} (ms)"] for q in (50, 95, 99)]
    assert latencies == ["20.0", "20.0", "400.0"]


@pytest.mark.parametrize(
    ("latency", "level", "told"),
    [(0.15, WARN, "150.0 ms"), (0.7, ERROR, "700.0 ms"), (-0.2, WARN, "ahead")],
)
def test_slow_or_ahead(latency, level, told, settings):
    report = build_camera_report(counted(latency=latency), STATE, POINTS, settings, 10.0)
    assert report.level == level and told in report.message


def test_silence(settings):
    counts = counted(seconds=5.0)
    assert build_camera_report(counts, STATE, POINTS, settings, 5.9).level == OK
    report = build_camera_report(counts, STATE, POINTS, settings, 8.0)
    assert report.level == ERROR and "No image for 3 s" in report.message
    nobody = replace(STATE, publishers=0)
    assert (
        "/image has no publisher"
        in build_camera_report(counts, nobody, POINTS, settings, 8.0).message
    )
    paused = build_camera_report(counts, replace(STATE, paused=True), POINTS, settings, 8.0)
    assert (paused.level, paused.message) == (OK, "Paused.")
    assert build_camera_report(ImageCounters(started=0.0), STATE, POINTS, settings, 0.5).level == OK
    assert (
        build_camera_report(ImageCounters(started=0.0), STATE, POINTS, settings, 1.5).level == ERROR
    )


def test_losses(settings):
    counts = counted()
    counts.count_drops(9.0, "overtaken", 30)
    assert build_camera_report(counts, STATE, POINTS, settings, 10.0).level == OK
    counts.count_drops(9.0, "malformed", 10)
    counts.last_error = "an image is cut short."
    report = build_camera_report(counts, STATE, POINTS, settings, 10.0)
    assert report.level == WARN
    assert "40 of 330 images" in report.message and "cut short" in report.message
    # Long past, they count in total only.
    report = build_camera_report(counted(seconds=25.0), STATE, POINTS, settings, 25.0)
    assert report.level == OK
    later = build_camera_report(counts, STATE, POINTS, settings, 25.0)
    assert later.values["dropped, overtaken"] == "30"


def test_images_lost_on_the_way(settings):
    counts = counted(seconds=5.0)
    counts.count_drops(9.0, "lost", 100)
    report = build_camera_report(counts, STATE, POINTS, settings, 10.0)
    assert report.level == ERROR and "all images on /image are lost" in report.message
    assert "100 of 250 images gave no points: 100 lost. Do this." in report.message
    few = counted()
    few.count_drops(9.0, "lost", 10)
    assert build_camera_report(few, STATE, POINTS, settings, 10.0).level == OK


def test_failing(settings):
    counts = counted()
    counts.count_drops(9.0, "failed")
    counts.last_error = "RuntimeError: out of memory"
    report = build_camera_report(counts, STATE, POINTS, settings, 10.0)
    assert report.level == ERROR and "out of memory" in report.message


def test_memory_is_measured():
    before = measure_resident_memory()
    block = np.ones(20_000_000)
    assert 140e6 < measure_resident_memory() - before < 200e6
    del block


def test_texts_of_a_bundle_do_not_control_the_terminal_of_a_monitor():
    from vditrack_ros.diagnostics import Report, build_diagnostic_status  # noqa: PLC0415

    report = Report(OK, "wan\x1b[2J\x9b2J\nfine", {"model": "x\u202e\n/bundle"})
    status = build_diagnostic_status("node: model", "camera", report)
    assert status.message == "wan\ufffd[2J\ufffd2J fine"
    assert [(value.key, value.value) for value in status.values] == [("model", "x\ufffd /bundle")]
