"""The bundled model on windows that pan over one picture: the truth is exact, inside and outside.

Points that left the picture must not be called visible elsewhere, in large, small, sharp, blurred
and nearly flat pictures.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from vditrack import Tracker

WIDTH, HEIGHT, FRAMES = 320, 240, 32


class Pan(NamedTuple):
    """Where points are, and where the tracker says that they are."""

    truth: np.ndarray
    """[N, T, 2]"""
    points: np.ndarray
    visible: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return ((self.truth >= 0) & (self.truth < (WIDTH, HEIGHT))).all(axis=2)

    @property
    def far_outside(self) -> np.ndarray:
        beyond = np.maximum(-self.truth, self.truth - np.float32([WIDTH, HEIGHT])).max(axis=2)
        return beyond > 10

    @property
    def error(self) -> np.ndarray:
        return np.linalg.norm(self.points - self.truth, axis=2)


def noise(shape, deviation, seed):
    """Smooth noise uint8 [H, W, 3] over most of the range."""
    values = np.random.default_rng(seed).normal(size=(*shape, 3))
    values = cv2.GaussianBlur(values, (0, 0), deviation)
    low, high = np.percentile(values, (1, 99))
    return np.clip(20 + 215 * (values - low) / (high - low), 0, 255).astype(np.uint8)


def shapes(shape):
    """Flat polygons on a flat ground."""
    rng, picture = np.random.default_rng(6), np.full((*shape, 3), 110, np.uint8)
    for _ in range(60):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(20, 60)
        corners = (16 * (corners + rng.uniform(0, shape[::-1]))).astype(np.int32)
        colour = [int(value) for value in rng.integers(0, 255, 3)]
        cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, shift=4)
    return picture


PICTURES = {
    "sharp": lambda shape: noise(shape, 2, 1) // 2 + noise(shape, 12, 2) // 2,
    "blurred": lambda shape: noise(shape, 9, 3),
    "clouds": lambda shape: noise(shape, 35, 4),
    "shapes": shapes,
}


def positions(course):
    """Left and upper edge of the window [T, 2] in a picture twice as wide, in whole pixels."""
    share = np.arange(FRAMES) / (FRAMES - 1)
    if course == "away":
        return np.stack([300 - 288 * share, np.full(FRAMES, 20)], axis=1).astype(int)
    x, y = 290 - 250 * np.sin(np.pi * share), 20 + 15 * np.sin(2 * np.pi * share)
    return np.rint(np.stack([x, y], axis=1)).astype(int)


@cache
def track(kind, course) -> Pan:
    picture = PICTURES[kind]((HEIGHT + 40, 2 * WIDTH))
    corners = positions(course)
    frames = np.stack([picture[y : y + HEIGHT, x : x + WIDTH] for x, y in corners])
    x, y = np.meshgrid((np.arange(6) + 0.5) * WIDTH / 6, (np.arange(6) + 0.5) * HEIGHT / 6)
    first = np.stack([x.ravel(), y.ravel()], axis=1)
    truth = first[:, None] - (corners - corners[0])
    tracks = Tracker.load().track(frames, np.insert(first, 0, 0, axis=1))
    return Pan(truth, tracks.points, tracks.visible)


@pytest.mark.parametrize("kind", PICTURES)
def test_points_that_left_are_not_visible(kind):
    pan = track(kind, "away")
    assert pan.far_outside.sum() > 150
    assert pan.visible[pan.far_outside].mean() <= 0.01


@pytest.mark.parametrize(("kind", "seen"), [("sharp", 0.97), ("blurred", 0.97), ("clouds", 0.9)])
def test_points_inside_are_seen_where_they_are(kind, seen):
    pan = track(kind, "away")
    assert pan.visible[pan.inside].mean() > seen
    assert np.median(pan.error[pan.inside & pan.visible]) < 0.5


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_visible_is_right_also_in_low_texture(kind):
    pan = track(kind, "away")
    assert (pan.error[pan.visible] > 8).mean() <= 0.01


def test_points_that_return_are_found_again():
    pan = track("sharp", "back")
    returned = pan.inside & np.logical_or.accumulate(pan.far_outside, axis=1)
    assert returned.sum() > 100
    assert (pan.visible & (pan.error < 4))[returned].mean() > 0.85
    assert pan.visible[pan.far_outside].mean() <= 0.01


def test_more_points_than_opencv_takes_at_once():
    """OpenCV's remap takes fewer than 32,768 rows."""
    tracker = Tracker.load()
    frames = np.stack([noise((48, 64), 2, 1)] * 2)
    rng = np.random.default_rng(0)
    places = rng.uniform((0, 0), (64, 48), (33_000, 2))
    tracks = tracker.track(frames, np.insert(places, 0, 0, axis=1))
    assert np.abs(tracks.points[:, 1] - places)[tracks.visible[:, 1]].max() < 0.5


def test_points_do_not_depend_on_how_many_are_tracked(monkeypatch):
    """Points are tracked in blocks; a block of one gives what a block of all gives."""
    whole = track("sharp", "back")
    monkeypatch.setattr("vditrack.points.flow_tracker._BLOCK", 5)
    track.cache_clear()
    parts = track("sharp", "back")
    assert np.array_equal(whole.visible, parts.visible)
    assert np.abs(whole.points - parts.points).max() < 1e-2
