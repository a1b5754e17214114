"""What is drawn where, looked at pixel by pixel."""

import numpy as np
import pytest

from vditrack.io.overlay import overlay, point_colours
from vditrack.points.tracks import Tracks

HEIGHT, WIDTH = 120, 160


def tracks_of(points, visible) -> Tracks:
    points = np.asarray(points, np.float32)
    visible = np.asarray(visible, np.bool_)
    first = np.column_stack([np.zeros(len(points)), points[:, 0]]).astype(np.float32)
    score = np.zeros(visible.shape, np.float32)
    return Tracks(first, points, visible, score, score)


def drawn(points, visible) -> tuple[list[np.ndarray], np.ndarray]:
    tracks = tracks_of(points, visible)
    frames = np.zeros((tracks.points.shape[1], HEIGHT, WIDTH, 3), np.uint8)
    pictures = list(overlay(frames, tracks))
    assert frames.max() == 0, "the caller's frames were drawn on"
    return pictures, point_colours(tracks.queries, (HEIGHT, WIDTH))


def test_no_points_leave_the_frames_alone():
    pictures, _ = drawn(np.zeros((0, 2, 2)), np.zeros((0, 2)))
    assert len(pictures) == 2
    assert max(picture.max() for picture in pictures) == 0


def test_a_visible_point_is_a_disc_where_it_is():
    (picture,), colours = drawn([[[40.5, 30.5]]], [[True]])
    assert (picture[30, 40] == colours[0]).all()
    rows, columns = np.nonzero(picture.any(axis=-1))
    assert (rows.mean(), columns.mean()) == pytest.approx((30, 40), abs=0.5)


def test_an_invisible_point_is_hollow():
    (picture,), _ = drawn([[[40.5, 30.5]]], [[False]])
    assert not picture[30, 40].any()
    assert picture[26:35, 36:45].any()


def test_trails_skip_what_was_invisible():
    points = [[[20.5 + 30 * t, 60.5] for t in range(4)]]
    pictures, _ = drawn(points, [[True, True, False, True]])
    last = pictures[-1]
    assert last[60, 35].any(), "seen in both frames"
    assert not last[60, 65].any()
    assert not last[60, 95].any()


def test_points_far_outside_do_no_harm():
    (picture,), _ = drawn([[[1e9, -1e9]]], [[True]])
    assert not picture.any()


def test_colours_tell_points_apart():
    queries = np.float32([[0, x, y] for x in (8, 56, 104, 152) for y in (10, 110)])
    colours = point_colours(queries, (HEIGHT, WIDTH)).astype(int)
    apart = np.abs(colours[:, None] - colours).sum(axis=-1) + 1000 * np.eye(8, dtype=int)
    assert apart.min() > 40
