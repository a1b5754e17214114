"""Which images are processed, by their stamps."""

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.camera.image_gate import ImageGate, Verdict


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
