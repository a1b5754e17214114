"""The order of images by stamps as cameras and simulations write them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vditrack.ros_messages.stamp_order import order_by_stamp

EPOCH = 1_700_000_000.0


def order(seconds, arrivals=None):
    """The order of stamps in seconds, recorded at 30 Hz."""
    stamps = [round(1e9 * second) for second in seconds]
    if arrivals is None:
        arrivals = [EPOCH + n / 30 for n in range(len(stamps))]
    return order_by_stamp(stamps, [round(1e9 * arrival) for arrival in arrivals])


def regular(count, first=EPOCH):
    return [first + n / 30 for n in range(count)]


def replaced(seconds, changes):
    return [changes.get(n, second) for n, second in enumerate(seconds)]


@pytest.mark.parametrize("first", [0, 10, EPOCH])
def test_stamps_in_order(first):
    found = order(regular(20, first))
    assert found.indices == tuple(range(20))
    assert found.stamps == tuple(round(1e9 * second) for second in regular(20, first))
    assert found.jump is None
    assert not (found.by_arrival or found.unstamped or found.repeated or found.stray or found.moved)


@pytest.mark.parametrize("first", [10, EPOCH])
@pytest.mark.parametrize("zeros", [[0], [7], [19], [0, 1, 2], [0, 7, 8, 19]])
def test_zeros_among_others_are_left_out(first, zeros):
    found = order(replaced(regular(20, first), dict.fromkeys(zeros, 0)))
    assert found.indices == tuple(n for n in range(20) if n not in zeros)
    assert found.unstamped == len(zeros)
    lost = [n - before - 1 for before, n in pairwise([-1, *found.indices])]
    assert found.lost_before == tuple(lost)
    assert found.jump is None


def test_a_simulation_starts_at_zero():
    # Its clock stands still until it runs, and one image has lost its stamp.
    found = order([0, 0, 0, *regular(10, 1 / 30), 0, *regular(5, 12 / 30)])
    assert found.indices == (0, *range(3, 13), *range(14, 19))
    assert (found.repeated, found.unstamped) == (2, 1)


def test_without_stamps_times_of_arrival_count():
    found = order([0] * 5)
    assert found.by_arrival
    assert found.indices == (0, 1, 2, 3, 4)
    assert found.stamps[0] == EPOCH * 1e9


def test_late_images_are_put_in_order():
    seconds = regular(20)
    late = [*range(5), 6, 5, *range(7, 10), 12, 11, 10, *range(13, 20)]
    found = order([seconds[n] for n in late])
    assert [late[n] for n in found.indices] == list(range(20))
    assert found.moved == 3


@pytest.mark.parametrize("back", [0.1, 0.35, 0.5, 0.51, 0.983])
def test_a_clock_that_is_set_back_a_little(back):
    """What was recorded afterwards does not belong between what was recorded before."""
    found = order([*regular(40), *regular(60, EPOCH + 40 / 30 - back)])
    assert found.indices[:40] == tuple(range(40))
    assert found.indices[40:] == tuple(range(100 - len(found.indices) + 40, 100))
    assert len(found.indices) == 100 - round(30 * back) or len(found.indices) == 99 - int(30 * back)
    assert found.moved == 0
    assert found.overlapping + found.repeated == 100 - len(found.indices)
    assert found.lost_before[40] == found.overlapping


@given(st.lists(st.integers(0, 3), min_size=20, max_size=20), st.sets(st.integers(0, 19)))
def test_any_order_of_images_that_are_some_frames_late(delays, again):
    places = sorted(range(20), key=lambda n: n + delays[n])
    stamps = [10**9 * n // 30 + 10**10 for n in [*places, *again]]
    found = order_by_stamp(stamps, range(len(stamps)))
    assert found.stamps == tuple(sorted(set(stamps)))
    assert [stamps[n] for n in found.indices] == list(found.stamps)
    assert found.repeated == len(again)
    assert not any(found.lost_before)


@pytest.mark.parametrize(
    "changes",
    [{7: EPOCH - 50}, {7: EPOCH + 90}, {0: EPOCH + 90}, {19: EPOCH - 9}, {0: 12.5}, {19: 4e9}],
)
def test_single_wrong_stamps_are_left_out(changes):
    found = order(replaced(regular(20), changes))
    assert found.indices == tuple(n for n in range(20) if n not in changes)
    assert found.stray == 1
    assert sum(found.lost_before) == (19 not in changes)
    assert found.jump is None


def test_a_clock_that_was_set():
    found = order([*regular(10), *regular(10, EPOCH - 60)])
    assert found.indices == tuple(range(10))
    assert np.diff(found.jump) == pytest.approx(-60e9 - 9e9 / 30, abs=10)
    found = order([*regular(10, 12), *regular(10)])
    assert found.indices == tuple(range(10))
    assert found.jump == (round(12e9 + 9e9 / 30), EPOCH * 1e9)


def test_a_pause_of_the_recording_is_none():
    seconds = [*regular(10), *regular(10, EPOCH + 90_000)]
    found = order(seconds, arrivals=[second + 0.01 for second in seconds])
    assert found.indices == tuple(range(20))
    assert found.jump is None


def test_no_images():
    assert order([]).indices == ()
