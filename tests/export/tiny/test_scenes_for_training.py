"""Scenes that a student is trained on: what is visible, how windows differ, light and pictures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vditrack_export.tiny.cameras import draw_blur_kernel, draw_shade
from vditrack_export.tiny.pictures import build_pyramid, draw_picture
from vditrack_export.tiny.quadruples import View, draw_views, track_points


def painted(view: View) -> View:
    """Give layer ``n`` of a clip the one colour (20 n, 255 - 20 n, 0), under even light."""
    layers = []
    for number, layer in zip(view.order, view.scene.layers, strict=True):
        picture = layer.picture.copy()
        picture[..., :3] = 20 * number, 255 - 20 * number, 0
        layers.append(replace(layer, picture=picture))
    shade, smear = np.ones((96, 128), np.float32), np.ones((1, 1), np.float32)
    scene = replace(view.scene, layers=tuple(layers), shade=shade, smear=smear)
    return replace(view, scene=scene)


@pytest.mark.slow
def test_points_are_seen_or_hidden_as_the_pixels_say() -> None:
    right, seen, covered = 0, 0, 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        views = [painted(view) for view in draw_views(rng, 96, 128, ())]
        reds = [view.scene.render(time)[..., 0] for view in views for time in view.times]
        points, visible = track_points(rng, views, picked=40)
        for number, picked_in in enumerate(np.repeat(np.arange(4), 40)):
            assert visible[number, picked_in]
            own = around(reds[picked_in], points[number, picked_in])
            if np.ptp(own):
                continue  # On an edge, where colours mix.
            for red, point, told in zip(reds, points[number], visible[number], strict=True):
                if not ((point >= 0).all() and (point < (128, 96)).all()):
                    assert not told
                    continue
                same = around(red, point) == own[1, 1]
                # Two layers' colours mix where edges meet: hence shares for what is seen.
                right, seen = right + bool(told and same.any()), seen + bool(told)
                covered += not told
                assert told or not same.all()
    assert covered > 80 and seen > 2000 and right > 0.99 * seen


def around(red: Any, point: Any) -> Any:
    column, row = np.floor(point).astype(int)
    return np.pad(red.astype(int), 1, mode="edge")[row : row + 3, column : column + 3]


@pytest.mark.slow
def test_windows_far_apart_differ_in_scale_by_up_to_two_and_in_angle() -> None:
    zooms, turns = [], []
    for seed in range(60):
        first, second = draw_views(np.random.default_rng(seed), 32, 32, ())
        before, after = (view.scene.layers[0].motion.waves.base for view in (first, second))
        if (before != after).any():
            zooms.append(abs(after[2] - before[2]))
            turns.append(abs(after[3] - before[3]))
    assert 25 < len(zooms) < 55, "some clips go on, others leave a gap"
    assert 0.5 < max(zooms) <= np.log(2) and np.median(zooms) > 0.2
    assert max(turns) > np.pi / 4 and 0.2 < np.median(turns) < np.pi / 4


def test_shadows_only_darken_and_smears_move_nothing() -> None:
    rng = np.random.default_rng(0)
    shades = [draw_shade(rng, 24, 32) for _ in range(20)]
    assert all(shade.min() > 0 and shade.max() <= 1 for shade in shades)
    assert min(shade.min() for shade in shades) < 0.6
    for _ in range(30):
        smear = draw_blur_kernel(rng)
        np.testing.assert_allclose(smear, smear[::-1, ::-1])
        assert smear.sum() == pytest.approx(1, abs=1e-5)


def test_pictures_have_their_size_with_and_without_photographs() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (210, 300, 3), np.uint8)
    levels = build_pyramid(photo)
    assert [level.shape[:2] for level in levels] == [(210, 300), (105, 150), (52, 75)]
    for photos in ((), (levels,)):
        for height, width in ((16, 300), (90, 40), (500, 500)):
            for _ in range(5):
                picture = draw_picture(rng, height, width, photos)
                assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
