"""The order of recorded images by their stamps, and which of them are left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND

MAX_DELAY = NANOSECONDS_PER_SECOND
"""Nanoseconds by which a late image may be older than one before it. An older one has a wrong
stamp, or the clock was set back."""
_MAX_PAUSE = 3600 * NANOSECONDS_PER_SECOND
"""Nanoseconds by which stamps may advance while the recorder's clock does not."""
_MAX_SPEED = 100
"""Speed of the stamps, relative to the recorder's clock, above which a pause is a wrong stamp."""
_MIN_SPACING = 0.6
"""Least distance of a late image from those before it, in usual intervals. The images of a clock
that was set back by less than `MAX_DELAY` lie closer."""
_MAX_STRAY_SHARE = 0.1
"""Share of the images that may have wrong stamps; if more have, the clock was set."""


@dataclass(frozen=True)
class StampOrder:
    """The images to read, by their stamps, and how many were left out or moved."""

    indices: tuple[int, ...]
    """Numbers of the images in the recording, in the order of their stamps."""
    stamps: tuple[int, ...]
    """Their stamps in nanoseconds, ascending."""
    lost_before: tuple[int, ...]
    """Numbers of images without a usable stamp that were recorded after the image before each."""
    by_arrival: bool
    """Whether all stamps are zero, so that times of arrival replace them."""
    unstamped: int
    """Images left out because their stamp is zero, and those of others are not."""
    repeated: int
    """Images left out because another one has the same stamp."""
    stray: int
    """Images left out because their stamp is far off those of the others."""
    overlapping: int
    """Images left out because they are late and between images that are not: the clock was set back
    a little."""
    moved: int
    """Images put in order: they came after one with a later stamp."""
    jump: tuple[int, int] | None
    """(stamp before, stamp after) where the clock was set; images from there on are left out."""


def order_by_stamp(stamps: Sequence[int], arrivals: Sequence[int]) -> StampOrder:
    """Return the order of images by their stamps.

    A stamp of zero is a time only at the start of a simulation: before the first other stamp, and
    at most `MAX_DELAY` before it. Images that are up to `MAX_DELAY` late are put in order where one
    is missing.

    Args:
        stamps: of the images in the order in which they were recorded, in nanoseconds.
        arrivals: times at which they were recorded, in nanoseconds.

    """
    by_arrival = not any(stamps)
    times = list(arrivals if by_arrival else stamps)
    first = next((n for n, time in enumerate(times) if time), len(times))
    zero_is_time = first < len(times) and times[first] <= MAX_DELAY
    stamped = [n for n, time in enumerate(times) if time or (zero_is_time and n < first)]
    kept = _drop_stray(times, arrivals, stamped)
    stray = len(stamped) - len(kept)

    jump = None
    place = _find_jump(times, arrivals, kept)
    if place is not None:
        jump = times[kept[place - 1]], times[kept[place]]
        kept = kept[:place]
    by_time, moved, repeated = _fill_gaps(times, kept)
    ordered = sorted(by_time)
    indices = [by_time[time] for time in ordered]
    lost = sorted(set(range(len(times) if jump is None else kept[-1])) - set(indices) - repeated)
    passed = [bisect_right(lost, n) for n in accumulate(indices, max)]
    return StampOrder(
        indices=tuple(indices),
        stamps=tuple(ordered),
        lost_before=tuple(now - before for before, now in pairwise([0, *passed])),
        by_arrival=by_arrival,
        unstamped=len(times) - len(stamped),
        repeated=len(repeated),
        stray=stray,
        overlapping=len(kept) - len(repeated) - len(ordered),
        moved=moved,
        jump=jump,
    )


def _fill_gaps(times: Sequence[int], kept: Sequence[int]) -> tuple[dict[int, int], int, set[int]]:
    """Return images by their time, how many of them were late, and those that repeat a time."""
    steps = sorted(abs(times[n] - times[last]) for last, n in pairwise(kept))
    intervals = [step for step in steps if step] or [0]
    # Where images are out of order, most steps are longer than the usual interval.
    spacing = _MIN_SPACING * intervals[len(intervals) // 10]
    by_time: dict[int, int] = {}
    ordered: list[int] = []
    moved, repeated = 0, set[int]()
    for n in kept:
        time = times[n]
        place = bisect_right(ordered, time)
        if time in by_time:
            repeated.add(n)
        elif place == len(ordered):
            by_time[time] = n
            ordered.append(time)
        elif all(abs(time - other) >= spacing for other in ordered[max(0, place - 1) : place + 1]):
            by_time[time] = n
            ordered.insert(place, time)
            moved += 1
    return by_time, moved, repeated


def _find_jump(times: Sequence[int], arrivals: Sequence[int], kept: Sequence[int]) -> int | None:
    """Return the first place in `kept` before which the clock was set; None if it never was."""
    latest = times[kept[0]] if kept else 0
    for place, (last, n) in enumerate(pairwise(kept), 1):
        latest = max(latest, times[last])
        if times[n] < latest - MAX_DELAY or _is_far(times, arrivals, last, n):
            return place
    return None


def _is_far(times: Sequence[int], arrivals: Sequence[int], last: int, n: int) -> bool:
    """Return whether stamps advance so far between two images that one of them must be wrong."""
    return times[n] - times[last] > _MAX_PAUSE + _MAX_SPEED * abs(arrivals[n] - arrivals[last])


def _drop_stray(times: Sequence[int], arrivals: Sequence[int], kept: list[int]) -> list[int]:
    """Return the images without those that have a wrong stamp; all, if these would be too many."""
    if _find_jump(times, arrivals, kept) is None:
        return kept
    consistent = _find_consistent(times, kept)
    parts: list[list[int]] = []
    for n in consistent:
        if not parts or _is_far(times, arrivals, parts[-1][-1], n):
            parts.append([])
        parts[-1].append(n)
    longest = max(parts, key=len)
    few = max(1, _MAX_STRAY_SHARE * len(kept))
    return longest if len(kept) - len(longest) <= few else kept


def _find_consistent(times: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Return the images whose stamps fit to those of as many others as possible.

    These are the longest series whose stamps do not go back, and the images that are at most
    `MAX_DELAY` older than one before them, or newer than one behind them, in that series.
    """
    tails: list[int] = []
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for n in kept:
        place = bisect_right(tails, times[n])
        before[n] = ends[place - 1] if place else None
        if place == len(tails):
            tails.append(times[n])
            ends.append(n)
        else:
            tails[place], ends[place] = times[n], n
    series: set[int] = set()
    last: int | None = ends[-1]
    while last is not None:
        series.add(last)
        last = before[last]
    latest = accumulate((times[n] if n in series else -(2**63) for n in kept), max)
    earliest = list(accumulate((times[n] if n in series else 2**63 for n in reversed(kept)), min))
    return [
        n
        for n, above, below in zip(kept, latest, reversed(earliest), strict=True)
        if above - MAX_DELAY <= times[n] <= below + MAX_DELAY
    ]
