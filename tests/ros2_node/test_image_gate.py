"""Which images are processed, by their stamps."""

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


def test_images_by_their_stamps():
    gate = ImageGate()
    stamps = [5, 5, 5.1, 5.05, 5.1, 5.16, 4.9, 4.93, 6.94, 6.94, 6.95]
    took, again, late, back, gap = (
        Verdict.ACCEPTED,
        Verdict.REPEATED,
        Verdict.LATE,
        Verdict.CLOCK_SET,
        Verdict.AFTER_GAP,
    )
    expected = [took, again, took, late, again, took, back, took, gap, again, took]
    assert [judge(gate, t) for t in stamps] == expected


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
    took, zero = Verdict.ACCEPTED, Verdict.UNSTAMPED
    assert verdicts == [took, zero, took, took, zero]
    # If the camera stamps no more, tracking begins anew.
    assert judge(gate, 0, arrival=53) is Verdict.CLOCK_SET
    assert judge(gate, 0, arrival=53.03) is Verdict.ACCEPTED


def test_a_zero_before_the_first_stamp():
    gate = ImageGate()
    verdicts = [judge(gate, t, arrival=50 + t / 100) for t in (0, 10, 10.03)]
    assert verdicts == [Verdict.ACCEPTED, Verdict.CLOCK_SET, Verdict.ACCEPTED]


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
    stamps = [5, 5.5, 3, 3.5, 4, 9, 9.5]
    taken, out = Verdict.ACCEPTED, Verdict.LEFT_OUT
    expected = [taken, out, Verdict.CLOCK_SET, out, taken, Verdict.AFTER_GAP, out]
    assert [judge(gate, t, limits=limits) for t in stamps] == expected
