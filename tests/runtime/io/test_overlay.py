"""What is drawn where, looked at pixel by pixel."""

import cv2
import numpy as np
import pytest

from vditrack.io.overlay import choose_point_colours, draw_masks, draw_tracks
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
    pictures = list(draw_tracks(frames, tracks))
    assert frames.max() == 0, "the caller's frames were drawn on"
    return pictures, choose_point_colours(tracks.queries, (HEIGHT, WIDTH))


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
    colours = choose_point_colours(queries, (HEIGHT, WIDTH)).astype(int)
    apart = np.abs(colours[:, None] - colours).sum(axis=-1) + 1000 * np.eye(8, dtype=int)
    assert apart.min() > 40


def test_objects_are_tinted_and_outlined():
    frames = np.full((2, 240, 320, 3), 100, np.uint8)
    masks = np.zeros((2, 240, 320), np.uint8)
    masks[1, 60:120, 80:160], masks[1, 60:120, 160:200] = 2, 5
    kept, canvas = draw_masks(frames, masks)
    np.testing.assert_array_equal(kept, frames[0])
    assert canvas[90, 120].tolist() == [50, 114, 50]
    assert canvas[90, 80].tolist() == canvas[90, 159].tolist() == [0, 128, 0]
    assert canvas[90, 160].tolist() == [128, 0, 128]
    outside = masks[1] == 0
    np.testing.assert_array_equal(canvas[outside], frames[1][outside])
    assert (frames == 100).all(), "the caller's frames were drawn on"
    border = np.zeros((240, 320), np.uint8)
    cv2.rectangle(border, (80, 60), (159, 119), 1)
    assert (canvas[border == 1] == (0, 128, 0)).all()
