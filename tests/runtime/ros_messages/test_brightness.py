"""Reduction of 16-bit brightness: what the range holds, and that it does not flicker."""

import numpy as np
import pytest

from vditrack.ros_messages.brightness import FULL_RANGE, RangeFollower, RangeMeter, ValueRange


def scene(low, high, seed=0, shape=(96, 128)):
    """Values spread evenly over a range."""
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.uint16)


def levels(range_):
    return range_.reduce(np.arange(65_536, dtype=np.uint16)).astype(int)


def test_a_range_is_linear():
    assert (levels(FULL_RANGE) == np.arange(65_536) >> 8).all()
    scaled = levels(ValueRange(1000, 2023))
    assert (scaled[1000:2024] == np.arange(1024) // 4).all()
    assert (scaled[:1000] == 0).all()
    assert (scaled[2024:] == 255).all()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1023), (0, 4095), (200, 16_383), (7000, 8400), (16, 65_520)]
)
def test_a_recording_uses_most_levels(low, high):
    """10, 12 and 14 bits, a thermal camera, and 12 bits in the upper ones of 16."""
    meter = RangeMeter()
    for seed in range(3):
        values = scene(low, high, seed)
        # Hot pixels, and those that a rectification left empty.
        values[0, :5], values[1] = 65_534, 0
        meter.reduce(values)
    found = levels(meter.range)
    assert found[high] - found[low] >= 220
    assert meter.range.low <= low + 0.01 * (high - low)
    assert meter.range.high >= high - 0.01 * (high - low)


def test_nothing_to_measure():
    meter = RangeMeter()
    assert meter.range is None
    meter.reduce(np.zeros((8, 8), np.uint16))
    assert meter.range is None
    assert RangeFollower().reduce(np.zeros((8, 8), np.uint16)).max() == 0


def test_noise_of_a_plain_wall_is_not_stretched():
    meter, follower = RangeMeter(), RangeFollower()
    wall = scene(500, 503)
    meter.reduce(wall)
    assert np.ptp(meter.range.reduce(wall)) <= 16
    assert np.ptp(follower.reduce(wall)) <= 16


def test_the_range_of_a_live_camera_stays_while_the_scene_fits():
    follower = RangeFollower()
    follower.reduce(scene(1000, 3000))
    first = follower.range
    for seed in range(50):
        follower.reduce(scene(900 + 5 * seed, 2500 + 10 * seed, seed))
        assert follower.range == first
    assert follower.times_taken == 1


@pytest.mark.parametrize(("low", "high"), [(1000, 5000), (400, 3000), (1900, 2000)])
def test_the_range_of_a_live_camera_follows_slowly(low, high):
    follower = RangeFollower()
    follower.reduce(scene(1000, 3000))
    before = levels(follower.range)
    for seed in range(400):
        follower.reduce(scene(low, high, seed))
        after = levels(follower.range)
        assert np.abs(after - before).max() <= 4
        before = after
    found = levels(follower.range)
    assert 60 <= found[high] - found[low] <= 255
    assert found[high] < 255 or found[high - 50] < 255
    assert follower.times_taken == 1


def test_the_range_is_taken_anew_when_the_scene_has_left_it():
    follower = RangeFollower()
    follower.reduce(scene(1000, 1200))
    reduced = follower.reduce(scene(8000, 12_000))
    assert follower.times_taken == 2
    assert np.ptp(reduced) > 120


def test_all_colours_of_a_bayer_pattern_count():
    values = scene(1000, 1100, shape=(480, 640))
    values[1::2, 1::2] += 3000
    meter, follower = RangeMeter(), RangeFollower()
    meter.reduce(values)
    follower.reduce(values)
    for range_ in (meter.range, follower.range):
        assert range_.low <= 1000
        assert range_.high >= 4095
