"""Which images are processed, by their stamps."""

from dataclasses import replace

import numpy as np
import pytest

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.camera.image_gate import GateLimits, ImageGate, ImageTimes, Verdict
from vditrack_ros.counters import DROP_REASONS

LIMITS = GateLimits(max_age=0.5, max_gap=2.0, max_lateness=0.1)


def nanoseconds(seconds):
    return round(seconds * NANOSECONDS_PER_SECOND)


def judge(gate, stamp, age=0.0, arrival=None, limits=LIMITS):
    """The verdict on an image; it arrives by another clock than that of its stamp."""
    arrival = stamp + 900 if arrival is None else arrival
    now = 1000 + arrival if stamp == 0 else stamp + age
    verdict, used = gate.check(ImageTimes(*map(nanoseconds, (stamp, arrival, now))), limits)
    assert used == (nanoseconds(stamp) or None)
    return verdict


def test_images_in_order_are_taken():
    gate = ImageGate()
    assert [judge(gate, t) for t in (5, 5.03, 5.06)] == [Verdict.ACCEPTED] * 3


def test_the_jump_of_a_stray_image_is_measured():
    for after in (-3.0, 4.5):
        gate = ImageGate()
        assert gate.measure_jump() == 0
        assert judge_all([9.0, 9.0 + after], gate=gate) == [TOOK, STRAY]
        np.testing.assert_allclose(gate.measure_jump(), after)


TOOK, AGAIN, LATE, STRAY = (
    Verdict.ACCEPTED,
    Verdict.REPEATED,
    Verdict.LATE,
    Verdict.STRAY,
)
SET, GAP = Verdict.CLOCK_SET, Verdict.AFTER_GAP


def judge_all(stamps, interval=1 / 30, gate=None, start=900.0):
    """Verdicts on images that arrive at equal intervals, whatever their stamps say."""
    gate, limits, verdicts = gate or ImageGate(), replace(LIMITS, max_age=0.0), []
    for n, stamp in enumerate(stamps):
        arrival = nanoseconds(start + interval * n)
        times = ImageTimes(nanoseconds(stamp), arrival, 10**18 + arrival)
        verdicts.append(gate.check(times, limits)[0])
    return verdicts


def frames(start, count):
    return [start + n / 30 for n in range(count)]


def test_images_out_of_order_are_left_out():
    stamps = [5, 5, 5.1, 5.05, 5.1, 5.16, 5.08, 5.2]
    assert judge_all(stamps) == [TOOK, AGAIN, TOOK, LATE, AGAIN, TOOK, LATE, TOOK]


@pytest.mark.parametrize("stray", [3600, -3600, 1.5, -0.5, 1e9])
def test_a_stray_stamp_changes_nothing(stray):
    """Before, tracking was reset twice: by the stray stamp and by the next one."""
    stamps = [*frames(5000, 10), 5000 + stray, *frames(5000 + 11 / 30, 10)]
    assert judge_all(stamps) == [*[TOOK] * 10, STRAY, *[TOOK] * 10]


def test_stray_stamps_that_do_not_agree():
    strays = [9000, 100, 7000, 6000]
    stamps = [*frames(5000, 10), *strays, *frames(5000.5, 5)]
    assert judge_all(stamps) == [*[TOOK] * 10, *[STRAY] * 4, *[TOOK] * 5]


def test_another_camera_on_the_topic_whose_clock_differs():
    stamps = np.ravel(np.column_stack([frames(5000, 10), frames(9000, 10)]))
    assert judge_all(stamps, 1 / 60) == [TOOK, STRAY] * 10


@pytest.mark.parametrize("jump", [-3600, -5, 10, 3600])
def test_a_clock_that_is_set(jump):
    stamps = [*frames(5000, 10), *frames(5000 + jump, 10)]
    assert judge_all(stamps) == [*[TOOK] * 10, STRAY, SET, *[TOOK] * 8]


def test_a_clock_that_is_set_under_a_slow_camera():
    """Its images are farther apart than the longest gap."""
    stamps = [5000, 5003, 100, 103, 106]
    assert judge_all(stamps, interval=3) == [TOOK, GAP, STRAY, SET, GAP]


def test_a_clock_that_is_set_forward_within_the_longest_gap():
    """One image is left out; points are found again as after a gap."""
    stamps = [*frames(5000, 10), *frames(5001.8, 10)]
    assert judge_all(stamps) == [*[TOOK] * 10, STRAY, *[TOOK] * 9]


def test_a_clock_that_is_set_back_and_forth():
    stamps = [*frames(5000, 5), *frames(100, 5), *frames(5001, 5)]
    assert judge_all(stamps) == [*[TOOK] * 5, *[STRAY, SET, TOOK, TOOK, TOOK] * 2]


def test_images_that_are_lost_are_no_jump():
    kept = [n for n in range(60) if n < 10 or n % 10 == 0]
    gate = ImageGate()
    assert [judge(gate, 5000 + n / 30) for n in kept] == [TOOK] * len(kept)


def test_an_image_after_one_that_was_delayed_is_no_jump():
    """The image before came 0.4 s late; those between were lost; this one comes at once."""
    gate = ImageGate()
    stamps, delays = [9, 9.03, 9.06, 9.09, 9.12, 9.51], [0.02] * 4 + [0.42, 0.04]
    verdicts = [
        judge(gate, stamp, age=delay, arrival=stamp + delay)
        for stamp, delay in zip(stamps, delays, strict=True)
    ]
    assert verdicts == [TOOK] * 6


def test_a_pause_of_the_camera():
    gate = ImageGate()
    assert [judge(gate, t) for t in (5, 5.03, 15, 15.03)] == [TOOK, TOOK, GAP, TOOK]


def test_a_stray_stamp_after_a_pause():
    gate = ImageGate()
    assert judge_all(frames(5000, 5), gate=gate) == [TOOK] * 5
    assert judge_all([9000, *frames(5010, 2)], gate=gate, start=910) == [STRAY, GAP, TOOK]


def test_a_pause_in_a_simulation_that_is_faster_than_time():
    gate = ImageGate()
    # Ten seconds of the simulation take one.
    times = [ImageTimes(nanoseconds(t), nanoseconds(t / 10), nanoseconds(t)) for t in (5, 5.1, 15)]
    assert [gate.check(one, LIMITS)[0] for one in times] == [TOOK, TOOK, GAP]


def test_a_recording_played_fast_without_its_clock():
    """One image a second, ten times as fast."""
    assert judge_all([5000 + n for n in range(20)], interval=0.1) == [TOOK] * 20


def test_stamps_that_a_float_would_merge():
    gate = ImageGate()
    epoch = 1_700_000_000 * NANOSECONDS_PER_SECOND
    verdicts = [gate.check(ImageTimes(epoch + n, n, epoch), LIMITS)[0] for n in (0, 1, 1)]
    assert verdicts == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.REPEATED]


def test_old_images_are_no_images():
    gate = ImageGate()
    assert judge(gate, 5) is Verdict.ACCEPTED
    assert judge(gate, 4, age=0.6) is Verdict.TOO_OLD
    # It was not taken, so the clock has not gone back.
    assert judge(gate, 5.03, age=0.4) is Verdict.ACCEPTED
    any_age = GateLimits(max_age=0, max_gap=2.0, max_lateness=0.1)
    assert judge(gate, 5.06, age=1e6, limits=any_age) is Verdict.ACCEPTED
    # Of a camera whose clock is ahead.
    assert judge(gate, 5.09, age=-9) is Verdict.ACCEPTED


def test_a_camera_without_stamps():
    gate = ImageGate()
    verdicts = [judge(gate, 0, arrival=t) for t in (7, 7.03, 7.06, 9.5)]
    assert verdicts == [*[Verdict.ACCEPTED] * 3, Verdict.AFTER_GAP]


@pytest.mark.parametrize("first", [10, 1_700_000_000])
def test_a_zero_among_stamps(first):
    gate = ImageGate()
    stamps = [first, 0, first + 0.06, first + 0.09, 0]
    verdicts = [judge(gate, t, arrival=50 + n / 30) for n, t in enumerate(stamps)]
    zero = Verdict.UNSTAMPED
    assert verdicts == [TOOK, zero, TOOK, TOOK, zero]
    # If the camera stamps no more, tracking begins anew.
    verdicts = [judge(gate, 0, arrival=t) for t in (53, 53.03, 53.06)]
    assert verdicts == [STRAY, SET, TOOK]
    # A stamp among zeros changes nothing either.
    verdicts = [judge(gate, t, arrival=53.1 + n / 30) for n, t in enumerate((9, 0, 0))]
    assert verdicts == [STRAY, TOOK, TOOK]


def test_a_zero_before_the_first_stamp():
    gate = ImageGate()
    verdicts = [judge(gate, t, arrival=50 + t / 100) for t in (0, 10, 10.03, 10.06)]
    assert verdicts == [TOOK, STRAY, SET, TOOK]


def test_a_simulation_starts_at_zero():
    gate = ImageGate()
    times = [ImageTimes(nanoseconds(t), nanoseconds(70 + t), nanoseconds(t)) for t in (0, 0, 0.03)]
    took = Verdict.ACCEPTED
    assert [gate.check(time, LIMITS) for time in times] == [
        (took, 0),
        (Verdict.REPEATED, 0),
        (took, nanoseconds(0.03)),
    ]


def test_drops_are_counted_by_their_reason():
    assert {verdict.value for verdict in Verdict if verdict.is_drop} <= set(DROP_REASONS)


@pytest.mark.parametrize(("rate", "max_rate"), [(30, 20), (30, 10), (60, 25), (30, 30), (15, 30)])
def test_images_are_left_out_evenly(rate, max_rate):
    """Leaving out by the time since the last image would give 15 of 30 for a maximum of 20."""
    gate, limits = ImageGate(), GateLimits(0.5, 2.0, 0.1, max_rate)
    jitter = np.random.default_rng(0).uniform(-0.002, 0.002, 600)
    stamps = 5 + np.arange(600) / rate + jitter
    verdicts = [judge(gate, float(t), limits=limits) for t in stamps]
    assert set(verdicts) <= {Verdict.ACCEPTED, Verdict.LEFT_OUT}
    taken = stamps[[verdict is Verdict.ACCEPTED for verdict in verdicts]]
    expected = min(rate, max_rate) * 600 / rate
    assert abs(len(taken) - expected) <= 0.01 * expected + 1
    assert np.diff(taken).max() < 1 / min(rate, max_rate) + 1 / rate


def test_after_a_jump_an_image_is_due():
    gate, limits = ImageGate(), GateLimits(0.5, 2.0, 0.1, 1.0)
    stamps = [5, 5.5, 2.5, 3, 3.5, 4, 9, 9.5]
    out = Verdict.LEFT_OUT
    expected = [TOOK, out, STRAY, SET, out, TOOK, GAP, out]
    assert [judge(gate, t, limits=limits) for t in stamps] == expected
