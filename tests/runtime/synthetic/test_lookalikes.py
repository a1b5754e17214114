"""Look-alikes that cross: each clip holds a crossing, and the control differs in looks alone."""

from itertools import combinations

import numpy as np
import pytest

from vditrack.evaluation.baselines.point_baselines import Still
from vditrack.evaluation.metrics.identity_switches import score_mask_identities
from vditrack.synthetic.layers.lookalikes import (
    COUNT,
    FRAMES,
    PATHS,
    draw_scene,
    get_clip_name,
    render_lookalikes,
)
from vditrack.synthetic.layers.scenes import Scene

SEED = 5
NUMBERS = range(9)
"""Each kind of path with two, three and four objects."""


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(SEED, number, different=False)[0] for number in NUMBERS]


def silhouettes(filmed, time):
    """Masks [N, H, W] of the objects, each alone before the backdrop."""
    backdrop, *objects = filmed.layers
    return np.stack([Scene(256, 256, (backdrop, one)).mask(float(time)) == 1 for one in objects])


def common(shapes):
    """Greatest share of the smaller of two shapes that the other covers."""
    return max((a & b).sum() / min(a.sum(), b.sum()) for a, b in combinations(shapes, 2))


def test_the_set_has_ten_clips_of_each_kind_and_of_each_number_of_objects():
    assert COUNT == 30 and FRAMES == 24
    kinds = [get_clip_name(number).rpartition("-")[0] for number in range(COUNT)]
    assert {kind: kinds.count(kind) for kind in PATHS} == dict.fromkeys(PATHS, 10)
    assert len({get_clip_name(number) for number in range(COUNT)}) == COUNT


@pytest.mark.slow
def test_two_to_four_objects_have_one_picture(scenes):
    assert [len(filmed.layers) - 1 for filmed in scenes] == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    for filmed in scenes:
        _, first, *others = filmed.layers
        for other in others:
            np.testing.assert_array_equal(other.picture, first.picture)


def test_they_begin_and_end_apart_and_cross_in_between(scenes):
    for filmed in scenes:
        whole = np.count_nonzero(filmed.layers[1].picture[..., 3] >= 128)
        for time in (0, 23):
            shapes = silhouettes(filmed, time)
            assert common(shapes) == 0
            assert (shapes.sum(axis=(1, 2)) >= 0.6 * whole).all()
        assert max(common(silhouettes(filmed, time)) for time in range(24)) >= 1 / 3


@pytest.mark.slow
def test_they_move_at_2_to_8_pixels_a_frame_and_pass_without_turning(scenes):
    # The last two are drawn again, since one would turn back in the middle of another.
    drawn_again = [draw_scene(2, 5, different=False)[0], draw_scene(0, 29, different=False)[0]]
    for filmed in [*scenes, *drawn_again]:
        positions = np.array(
            [[one.motion.waves.at(time)[:2] for time in range(24)] for one in filmed.layers[1:]]
        )
        steps = np.diff(positions, axis=1)
        fastest = np.linalg.norm(steps, axis=2).max(axis=1)
        assert (fastest > 1.9).all() and (fastest < 8.1).all()
        shapes = [silhouettes(filmed, time) for time in range(24)]
        for a, b in combinations(range(len(steps)), 2):
            met = [t for t in range(23) if (shapes[t][a] & shapes[t][b]).any()]
            for one in (a, b):
                along = [steps[one, t] @ steps[one, t + 1] for t in met if t + 1 in met]
                assert min(along, default=1) > 0


@pytest.mark.parametrize("kind", PATHS)
def test_the_kinds_of_paths_are_what_they_are_called(scenes, kind):
    for filmed in scenes[list(PATHS).index(kind) :: 3]:
        for n, one in enumerate(filmed.layers[1:]):
            path = np.array([one.motion.waves.at(time)[:2] for time in range(24)])
            straight, travelled = np.linalg.norm(path[-1] - path[0]), path_length(path)
            if kind == "arcs":
                assert 0.6 < straight / travelled < 0.95
            elif kind == "round-trips" and n % 2 == 0:
                assert straight < 0.4 * travelled
            else:
                assert straight > 0.999 * travelled


def path_length(path):
    return np.linalg.norm(np.diff(path, axis=0), axis=1).sum()


def test_backdrops_are_calm_and_less_so(scenes):
    moved = []
    for filmed in scenes:
        path = np.array([filmed.layers[0].motion.waves.at(time)[:2] for time in range(24)])
        moved.append(path_length(path))
    assert min(moved) < 8 and max(moved) > 1.5 * min(moved) and max(moved) < 60


@pytest.fixture(scope="module")
def pair():
    """The first clip, and its control."""
    return next(render_lookalikes(SEED)), next(render_lookalikes(SEED, different=True))


@pytest.mark.slow
def test_a_clip_holds_what_it_promises(pair, scenes):
    clip = pair[0]
    assert clip.name == "straight-00"
    assert clip.frames.shape == (24, 256, 256, 3) and clip.frames.dtype == np.uint8
    assert clip.masks.shape == (24, 256, 256) and clip.masks.dtype == np.uint8
    assert clip.points.shape == (0, 24, 2) and clip.visible.shape == (0, 24)
    assert clip.alike == (1, 2)
    for time in (0, 11, 23):
        first, second = silhouettes(scenes[0], time)
        expected = np.where(second, 2, np.where(first, 1, 0))
        np.testing.assert_array_equal(clip.masks[time], expected)
        rendered = scenes[0].render(float(time)).astype(int)
        assert np.abs(clip.frames[time] - rendered).mean() < 3


def test_the_control_differs_in_looks_alone(pair):
    alike, different = pair
    assert (alike.name, alike.alike) == (different.name, different.alike)
    np.testing.assert_array_equal(alike.masks, different.masks)
    # The first object keeps its picture; at outlines colours blend.
    beside = alike.frames[0].astype(int) - different.frames[0]
    assert np.abs(beside[alike.masks[0] == 2]).mean() > 30
    assert np.count_nonzero(beside[alike.masks[0] != 2].any(axis=1)) < 400


@pytest.mark.slow
def test_pictures_of_the_control_differ_from_each_other():
    for number in NUMBERS:
        pictures = [
            layer.picture[..., :3].astype(int)
            for layer in draw_scene(SEED, number, different=True)[0].layers[1:]
        ]
        assert min(np.abs(a - b).mean() for a, b in combinations(pictures, 2)) > 40


def test_the_same_seed_makes_the_same_clip_whatever_came_before():
    again = draw_scene(SEED, 4, different=False)[0].render(9.0)
    np.testing.assert_array_equal(again, draw_scene(SEED, 4, different=False)[0].render(9.0))
    for other in (draw_scene(SEED, 13, different=False), draw_scene(SEED + 1, 4, different=False)):
        assert np.abs(other[0].render(9.0).astype(int) - again).mean() > 10


@pytest.mark.slow
def test_no_motion_at_all_keeps_no_identity():
    """Nor in round trips, at whose end some objects are where they began."""
    for number, clip in zip(range(3), render_lookalikes(SEED), strict=False):
        still = score_mask_identities(clip, Still().propagate(clip.frames, clip.masks[0]))
        assert (still.hits, still.total) == (0, 1), number
        assert score_mask_identities(clip, clip.masks).hits == 1
