"""The leaving benchmark: tracks are what is seen inside the frame, and exact outside it."""

from copy import copy

import numpy as np
import pytest
from numpy.typing import NDArray

from doubles.interpolation import sample_bilinearly
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.leaving import (
    COUNT,
    FRAMES,
    MOVES,
    PICTURES,
    draw_scene,
    get_clip_name,
    render_leaving,
    render_scene,
)
from vditrack.synthetic.layers.scenes import Scene

SEED = 7
PICKED = np.repeat([0, 13, 26], [40, 12, 12])
"""The frame in which each point of a clip was picked."""
INDEX = np.arange(64)


class SparseCamera(Camera):
    """A perfect camera that renders only some of the frames, to save time."""

    step: int | None = None
    """Number of frames from one that is rendered to the next; None renders none."""

    def shoot(self, scene: Scene, time: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        if self.step is None or time % self.step:
            return np.zeros((scene.height, scene.width, 3), np.uint8)
        return super().shoot(scene, time, rng)


class EveryThirteenth(SparseCamera):
    step = 13


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, np.random.Generator]]:
    drawn = [draw_scene(SEED, number) for number in range(COUNT)]
    return [(scene, rng) for scene, _, rng in drawn]


@pytest.fixture(scope="module")
def clips(scenes) -> list[AnnotatedClip]:
    """All clips, with blank frames."""
    blank = SparseCamera(**vars(PERFECT))
    return [
        render_scene(get_clip_name(number), scene, blank, copy(rng))
        for number, (scene, rng) in enumerate(scenes)
    ]


def inside(clip: AnnotatedClip) -> NDArray[np.bool_]:
    return ((clip.points >= 0) & (clip.points < clip.size)).all(axis=-1)


def test_each_picture_and_move_comes_in_every_size(clips):
    kinds = [clip.name.split("-")[:2] for clip in clips]
    assert {tuple(kind) for kind in kinds} == {(p, m) for p in PICTURES for m in MOVES}
    sizes = [clip.frames.shape[1:3] for clip in clips]
    for place, names in enumerate((PICTURES, MOVES)):
        for name in names:
            of_name = {size for kind, size in zip(kinds, sizes, strict=True) if kind[place] == name}
            assert of_name == {(192, 256), (300, 400), (600, 800)}


def test_points_are_visible_exactly_inside_the_frame(clips):
    for clip in clips:
        assert clip.points.shape == (64, FRAMES, 2) and clip.known_outside
        np.testing.assert_array_equal(clip.visible, inside(clip))
        assert clip.visible[INDEX, PICKED].all()


def test_points_leave_in_every_clip_and_return_in_half_of_them(clips):
    home = []
    for clip in clips:
        far = ((clip.points < -10) | (clip.points > clip.size + 10)).any(axis=-1)
        assert far.mean() > 0.02
        # One-way, the last frame is the farthest from the first.
        moved = np.linalg.norm(clip.points - clip.points[:, :1], axis=-1).mean(axis=0)
        home.append(moved[-1] < 0.6 * moved.max())
        left = ~clip.visible[:40, FRAMES // 2] & clip.visible[:40, -1]
        assert left.any() == home[-1]
    assert sum(home) == COUNT // 2


def test_positions_outside_move_as_those_inside(clips):
    """The points inside determine the motion of the picture, a similarity, by least squares."""
    for clip in clips:
        for time in range(1, FRAMES):
            known = clip.visible[:, 0] & clip.visible[:, time]
            outside = ~clip.visible[:, time]
            if known.sum() < 4 or not outside.any():
                continue
            before = np.column_stack([clip.points[:, 0], np.ones(64)]).astype(np.float64)
            found = np.linalg.lstsq(before[known], clip.points[known, time], rcond=None)[0]
            cos, sin = found[0]
            np.testing.assert_allclose(found[1], [-sin, cos], atol=1e-4)
            error = np.abs(before @ found - clip.points[:, time])
            assert error[outside].max() < 0.02


def test_the_frame_never_shows_what_is_beyond_the_picture(scenes):
    """There the picture is mirrored, so a point would be seen twice."""
    for scene, _ in scenes:
        (layer,) = scene.layers
        half = np.array(layer.picture.shape[1::-1]) / 2
        corners = np.array([(x, y) for x in (0, scene.width) for y in (0, scene.height)], float)
        for time in map(float, range(FRAMES)):
            assert (np.abs(layer.motion.inverse(corners, time)) <= half).all()


# A pan that returns, a zoom of one way and a rotation that returns, of sharp pictures.
@pytest.mark.parametrize("number", [9, 1, 11])
def test_a_visible_point_keeps_the_grey_value_of_its_query(scenes, number):
    scene, rng = scenes[number]
    clip = render_scene("", scene, EveryThirteenth(**vars(PERFECT)), copy(rng))
    grey = clip.frames.mean(axis=-1, keepdims=True)
    margin = ((clip.points > 4) & (clip.points < clip.size - 4)).all(axis=-1)
    true, beside = [], []
    for time in (0, 13, 26, 39):
        for start in np.unique(PICKED):
            at = (start == PICKED) & margin[:, time] & margin[:, start] & (time != start)
            wanted = sample_bilinearly(grey[start], clip.points[at, start])
            for shift, errors in ((0.0, true), (3.0, beside)):
                found = sample_bilinearly(grey[time], clip.points[at, time] + shift)
                errors.extend(np.abs(found - wanted).ravel())
    assert len(true) > 40
    assert np.mean(true) < 2
    assert np.mean(beside) > 4 * np.mean(true)


def test_the_same_seed_gives_the_same_clip_and_others_another():
    once, again, other = (next(render_leaving(seed)) for seed in (SEED, SEED, SEED + 1))
    assert once.name == again.name == "textured-pan-00"
    np.testing.assert_array_equal(once.frames, again.frames)
    np.testing.assert_array_equal(once.points, again.points)
    assert np.abs(once.frames.astype(int) - other.frames).mean() > 10
