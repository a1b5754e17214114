"""Which packets count as damaged, from records as demuxers and decoders give them."""

from vditrack.io.clip import Gap
from vditrack.io.decoding.reliability import (
    DecodedFrame,
    DecodingRecord,
    Packet,
    find_missing_times,
    find_unreliable,
    group_gaps,
)

INTERVAL = 0.04


def record(times, *, keys=(0,), undecoded=(), **changes) -> DecodingRecord:
    """A record of packets at the given times, all decoded but some; ``changes`` by packet."""
    packets = [Packet(time, INTERVAL, 1000, index in keys) for index, time in enumerate(times)]
    for name, places in changes.items():
        for place in places:
            setattr(packets[place], name, True)
    frames = [
        DecodedFrame(index, time, index in keys, corrupt=False, position=index)
        for index, time in enumerate(times)
        if index not in undecoded
    ]
    return DecodingRecord(packets, frames)


def even(count: int) -> list[float]:
    return [INTERVAL * index for index in range(count)]


def test_everything_up_to_the_next_key_frame_depends_on_a_damaged_packet():
    assert find_unreliable(record(even(12), keys=(0, 4, 8), damaged=[5])) == {5, 6, 7}
    assert find_unreliable(record(even(12), keys=(0, 4, 8), damaged=[4])) == {4, 5, 6, 7}
    assert find_unreliable(record(even(6), damaged=[2])) == {2, 3, 4, 5}


def test_nothing_depends_on_a_disposable_packet():
    found = record(even(6), damaged=[2], disposable=[2])
    assert find_unreliable(found) == {2}
    assert find_missing_times(found, {2}) == [2 * INTERVAL]


def test_frames_before_a_key_frame_in_time_and_after_it_in_the_file_refer_to_both_sides():
    times = [INTERVAL * slot for slot in (0, 1, 2, 5, 3, 4, 6)]
    assert find_unreliable(record(times, keys=(0, 3), damaged=[1])) == {1, 2, 4, 5}


def test_a_packet_without_a_frame_is_damaged_unless_another_frame_shows_its_time():
    assert find_unreliable(record(even(8), keys=(0, 5), undecoded=[3])) == {3, 4}
    # An invisible reference frame, stored just before the frame of its time.
    times = even(8)
    times[3] = times[4] - 0.01
    assert find_unreliable(record(times, undecoded=[3])) == set()


def test_a_file_may_begin_between_key_frames():
    assert find_unreliable(record(even(8), keys=(3,), undecoded=[0, 1, 2])) == set()
    assert find_unreliable(record(even(8), keys=(0, 3), undecoded=[0, 1, 2])) == {0, 1, 2}


def test_a_hole_counts_only_where_times_are_missing():
    assert find_unreliable(record(even(8), after_hole=[4])) == set()
    times = [*even(4), *(INTERVAL * slot for slot in (7, 8, 9, 10))]
    found = record(times, keys=(0, 6), after_hole=[4])
    unreliable = find_unreliable(found)
    assert unreliable == {4, 5}
    missing = [round(time / INTERVAL) for time in find_missing_times(found, unreliable)]
    assert missing == [4, 5, 6, 7, 8]


def test_a_wild_time_is_damage():
    times = even(8)
    times[3] = 1e9
    assert find_unreliable(record(times, keys=(0, 5))) == {3, 4}
    # It does not count as millions of missing frames.
    assert len(find_missing_times(record(times, after_hole=[4]), set())) < 20_000
    # A recording that was paused has no wild time.
    assert find_unreliable(record([*even(4), *(1000 + time for time in even(4))])) == set()


def test_gaps_are_between_the_kept_frames():
    missing, kept = [0.0, 0.12, 0.16, 0.32], [0.04, 0.08, 0.20, 0.24, 0.28]
    assert group_gaps(missing, kept, INTERVAL) == [
        Gap(0.0, 0.04, 1),
        Gap(0.08, 0.20, 2),
        Gap(0.28, 0.36, 1),
    ]
