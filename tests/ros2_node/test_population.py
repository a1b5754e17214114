"""Which points are kept alive, and where new ones are placed."""

from dataclasses import replace

import numpy as np
import pytest

from vditrack.errors import InputError
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.points.placement import PointPlacement, PointRequest
from vditrack_ros.points.population import (
    Population,
    choose_grid_points,
)

SIZE = (120, 160)
QUALITY = 0.01
NOBODY = np.zeros((0, 2), np.float32)


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


class Stream:
    """Stands in for a live stream: points stay where they were put."""

    def __init__(self):
        self.ids, self.points = np.zeros(0, np.int64), NOBODY
        self._next = 0

    def frame_size(self, stamp=None):
        if stamp is not None and stamp < 0:
            raise InputError("before the newest frame")
        return SIZE

    def add(self, points, stamp=None):
        ids = self._next + np.arange(len(points))
        self._next += len(points)
        self.ids = np.concatenate([self.ids, ids])
        self.points = np.concatenate([self.points, points])
        return ids

    def remove(self, ids):
        assert np.isin(ids, self.ids).all()
        kept = ~np.isin(self.ids, ids)
        self.ids, self.points = self.ids[kept], self.points[kept]

    def restart(self, kept):
        self.remove(np.setdiff1d(self.ids, kept))
        return self.ids

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


def test_as_many_live_as_wanted(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    assert len(stream.ids) == 64
    few = replace(settings, points=10)
    run(stream, population, 1, 1, few)
    assert len(stream.ids) == 10
    run(stream, population, 2, 1, replace(few, population="none"))
    assert len(stream.ids) == 0


def test_lost_points_are_replaced_in_time(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    hidden = stream.ids[:5].copy()
    run(stream, population, 1, 0.9, settings, hidden)
    assert np.isin(hidden, stream.ids).all()
    run(stream, population, 1.9, 0.5, settings, hidden)
    assert not np.isin(hidden, stream.ids).any()
    assert len(stream.ids) == 64
    # Ids are not used again.
    assert stream.ids.max() == 68


def test_points_outside_are_replaced_at_once(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    gone = stream.ids[7]
    stream.points[7] = (-3, 10)
    run(stream, population, 1, 0.4, settings)
    assert gone not in stream.ids and len(stream.ids) == 64


def test_points_asked_for_stay(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    asked = np.array([[5, 5], [200, 5], [np.nan, 5], [7, 7]], np.float32)
    result = population.add_requested(asked, settings)
    mine = stream.ids[-2:].copy()
    assert result.added == 2 and result.ids == [mine[0], -1, -1, mine[1]]
    outside = "It is outside the image of 160 x 120 pixels."
    assert result.reasons == ["", outside, "Its position is not finite.", ""]
    assert population.find_requested(np.array([0, mine[1], 999])).tolist() == [False, True, False]
    run(stream, population, 1, 3, settings, hidden=mine)
    assert np.isin(mine, stream.ids).all()
    # Beside those that nobody asked for.
    assert len(stream.ids) == 66 and population.requested_count == 2


class Asked:
    """A request, and what became of it."""

    def __init__(self, stamp, deadline=float("inf")):
        self.results = []
        read = np.array([[5, 5]], np.float32).copy
        self.request = PointRequest(round(stamp * 1e9), read, self.results.append, deadline)

    @property
    def fault(self):
        (result,) = self.results
        return result.fault


def test_requests_wait_for_their_image(settings):
    """Before, one before the first image was refused, and stamps were not read."""
    stream = Stream()
    population = Population(stream)
    placement = PointPlacement(population)
    early, exact, later, far = Asked(0), Asked(10.0), Asked(11.5), Asked(13.0)
    for asked in (early, exact, later, far):
        assert placement.submit(asked.request, settings)
    run(stream, population, 10.0, 0.1, settings)
    placement.place_waiting(round(10.0e9), settings)
    assert early.results[0].added == exact.results[0].added == 1
    assert not later.results and "3 s ahead of the images" in far.fault
    # The first image that is not before the stamp.
    placement.place_waiting(round(11.6e9), settings)
    assert later.results[0].added == 1 and len(placement) == 0
    # A past image is the stream's concern.
    past = Asked(-1.0)
    assert not placement.submit(past.request, settings)
    assert "before the newest frame" in past.fault
    # After a reset, they wait again.
    placement.forget_images()
    assert placement.submit(Asked(0).request, settings) and len(placement) == 1


def test_few_requests_wait_and_not_for_ever(settings):
    placement = PointPlacement(Population(Stream()))
    asked = [Asked(0, deadline=float(n)) for n in range(11)]
    for one in asked:
        placement.submit(one.request, settings)
    assert len(placement) == 10 and "More than 10" in asked[0].fault
    placement.expire(4.5)
    assert [len(one.results) for one in asked] == 5 * [1] + 6 * [0]
    assert "no image came" in asked[4].fault
    placement.refuse_waiting("tracking was reset")
    assert asked[10].fault == "tracking was reset" and len(placement) == 0


def test_room_is_made_for_points_asked_for(settings):
    stream = Stream()
    population = Population(stream)
    tight = replace(settings, points=4, max_points=6)
    run(stream, population, 0, 1, tight)
    asked = np.array([[x, 5] for x in range(10, 50, 10)], np.float32)
    assert population.add_requested(asked, tight).added == 4
    first = stream.ids[-4:].copy()
    run(stream, population, 1, 1, tight, hidden=first[:1])
    assert len(stream.ids) == 6 and np.isin(first, stream.ids).all()
    result = population.add_requested(asked, tight)
    assert result.added == 3 and "max_points is 6" in result.reasons[3]
    # One that is not seen made way, those seen did not.
    assert np.isin(first, stream.ids).tolist() == [False, True, True, True]


def test_points_asked_for_outlive_a_jump_of_the_clock(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 1000, 1, settings)
    population.add_requested(np.array([[5, 5], [7, 7], [9, 9]], np.float32), settings)
    mine = stream.ids[-3:].copy()
    assert population.restart(keep_population=False) == 3 == population.requested_count
    assert stream.ids.tolist() == mine.tolist()
    run(stream, population, 0, 3, settings, hidden=mine)
    assert len(stream.ids) == 67 and np.isin(mine, stream.ids).all()


def test_the_population_outlives_a_pause(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 1000, 1, settings)
    before = stream.ids.copy()
    population.restart(keep_population=True)
    # Those of before are not seen at first, and do not keep others from the image.
    run(stream, population, 2000, 0.1, settings, hidden=before)
    assert len(stream.ids) == len(before) + 64
    # Those that are found stay, and as many others go; the rest is searched for, then given up.
    run(stream, population, 2000.1, 0.5, settings, hidden=before[:10])
    assert np.isin(before, stream.ids).all() and len(stream.ids) == 64 + 10
    run(stream, population, 2000.6, 2, settings, hidden=before[:10])
    assert not np.isin(before[:10], stream.ids).any() and len(stream.ids) == 64


def test_another_picture_after_a_pause(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 1000, 1, settings)
    before = stream.ids.copy()
    population.restart(keep_population=True)
    run(stream, population, 2000, 3, settings, hidden=before)
    assert not np.isin(before, stream.ids).any() and len(stream.ids) == 64


def test_a_change_moves_the_population(settings):
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    requested = np.float32([[5, 5]])
    population.add_requested(requested, settings)
    right = replace(settings, region=(0.5, 0.0, 0.5, 1.0))
    run(stream, population, 1, 1, right)
    assert len(stream.ids) == 65
    assert (stream.points[:, 0] > 80).sum() == 64
    kept = stream.ids.copy()
    run(stream, population, 2, 1, right)
    assert stream.ids.tolist() == kept.tolist()
    # Points may leave the region afterwards.
    stream.points[10] = (10, 10)
    run(stream, population, 3, 1, right)
    assert stream.ids.tolist() == kept.tolist()
    mask = np.zeros(SIZE, np.uint8)
    mask[60:] = 255
    population.area.set_mask(mask)
    run(stream, population, 4, 1, right)
    assert ((stream.points >= (80, 60)).all(axis=1)).sum() == 64


def test_a_change_of_the_region_after_a_pause_moves_the_points_that_are_searched_for(settings):
    """They have no known place at the change, and would be found where they were."""
    stream = Stream()
    population = Population(stream)
    run(stream, population, 0, 1, settings)
    requested = population.add_requested(np.float32([[5, 5]]), settings).ids
    before = stream.ids.copy()
    population.restart(keep_population=True)
    right = replace(settings, region=(0.5, 0.0, 0.5, 1.0))
    run(stream, population, 2000, 1, right, hidden=before)
    run(stream, population, 2001, 3, right)
    of_population = ~np.isin(stream.ids, requested)
    assert of_population.sum() == 64 and (stream.points[of_population, 0] > 80).all()
    assert np.isin(requested, stream.ids).all()
