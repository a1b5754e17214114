"""Reduction of 16-bit brightness: what the range holds, and that it does not flicker."""

import numpy as np
import pytest

from vditrack.ros_messages.brightness import HIGH_BYTE, CurveMeter, LiveCurve


def scene(low, high, seed=0, shape=(96, 128)):
    """Values spread evenly over a range."""
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.uint16)


def levels(curve):
    return curve.reduce(np.arange(65_536, dtype=np.uint16)).astype(int)


def measured(*images):
    meter = CurveMeter()
    for values in images:
        meter.reduce(values)
    return meter.fit()


def test_the_high_byte():
    assert (levels(HIGH_BYTE) == np.arange(65_536) >> 8).all()


def test_a_curve_is_a_straight_line():
    """Then a change of exposure is a change of contrast, which correlation of patches ignores."""
    found = levels(measured(scene(1000, 3000)))
    middle = np.arange(1000, 3001)
    slope, offset = np.polyfit(middle, found[middle], 1)
    assert np.abs(slope * middle + offset - found[middle]).max() <= 1
    assert (np.diff(found) >= 0).all()


def test_a_dark_scene_with_a_lamp_keeps_its_contrast():
    values = scene(100, 900)
    values[:10, :60] = 60_000
    curve = measured(values)
    live = LiveCurve()
    live.reduce(values)
    for found in (levels(curve), levels(live.curve)):
        assert found[900] - found[100] > 55
        assert found[60_000] > found[900] + 60


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1023), (0, 4095), (200, 16_383), (7000, 8400), (16, 65_520)]
)
def test_a_recording_uses_most_levels(low, high):
    """10, 12 and 14 bits, a thermal camera, and 12 bits in the upper ones of 16."""
    images = [scene(low, high, seed) for seed in range(3)]
    for values in images:
        # Hot pixels, and those that a rectification left empty.
        values[0, :5], values[1] = 65_534, 0
    curve = measured(*images)
    found = levels(curve)
    assert found[high] - found[low] >= 220
    assert curve.low <= low + 0.01 * (high - low)
    assert curve.high >= high - 0.01 * (high - low)


def test_nothing_to_measure():
    assert measured() is None
    assert measured(np.zeros((8, 8), np.uint16)) is None
    assert LiveCurve().reduce(np.zeros((8, 8), np.uint16)).max() == 0


def test_noise_of_a_plain_wall_is_not_stretched():
    wall, live = scene(500, 503), LiveCurve()
    assert np.ptp(measured(wall).reduce(wall)) <= 16
    for _ in range(50):
        assert np.ptp(live.reduce(wall)) <= 16


def test_the_curve_of_a_live_camera_stays_while_the_scene_fits():
    live = LiveCurve()
    live.reduce(scene(1000, 3000))
    first = live.curve
    for seed in range(50):
        live.reduce(scene(900 + 5 * seed, 2500 + 10 * seed, seed))
        assert live.curve is first
    assert live.times_taken == 1


@pytest.mark.parametrize(
    ("low", "high"), [(1000, 6000), (8000, 12_000), (100, 400), (1900, 2000), (20_000, 20_050)]
)
def test_the_curve_is_taken_anew_when_it_does_not_suit(low, high):
    live = LiveCurve()
    live.reduce(scene(1000, 3000))
    for seed in range(50):
        reduced = live.reduce(scene(low, high, seed))
        dark, bright = np.quantile(reduced, [0.05, 0.95])
        assert bright - dark > 48
        assert reduced.max() < 255
    assert live.times_taken == 2


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_a_slow_change_of_exposure_takes_few_curves(factor):
    live = LiveCurve()
    for n in range(120):
        gain = factor**n
        reduced = live.reduce(scene(round(500 * gain), round(4000 * gain), n))
        assert np.ptp(np.quantile(reduced, [0.05, 0.95])) > 40
        assert (reduced == 255).mean() < 0.06
    assert 2 <= live.times_taken <= 6


def test_all_colours_of_a_bayer_pattern_count():
    values = scene(1000, 1100, shape=(480, 640))
    values[1::2, 1::2] += 3000
    live = LiveCurve()
    live.reduce(values)
    for curve in (measured(values), live.curve):
        assert curve.low <= 1000
        assert curve.high >= 4095
