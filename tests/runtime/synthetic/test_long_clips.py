"""The long benchmark: its difficulties go on to the end, and its truth is what is seen."""

from copy import copy

import numpy as np
import pytest
from numpy.typing import NDArray

from doubles.interpolation import sample_bilinearly
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.challenges import Stage
from vditrack.synthetic.layers.long_clips import (
    COUNT,
    FRAMES,
    KINDS,
    draw_stage,
    get_clip_name,
    render_long,
    render_stage,
)
from vditrack.synthetic.layers.scenes import Scene

pytestmark = pytest.mark.slow

SEED = 7
RENDERED = (0, 83, 166, 249)
PICKED = np.repeat([0, 83], [32, 8])
"""The frame in which each point of a clip was picked."""
FIRST = slice(0, 32)
"""Points picked in the first frame."""


class SparseCamera(Camera):
    """A perfect camera that renders a few of the frames, to save time."""

    def shoot(self, scene: Scene, time: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        if time not in RENDERED:
            return np.zeros((scene.height, scene.width, 3), np.uint8)
        return super().shoot(scene, time, rng)


@pytest.fixture(scope="module")
def stages() -> list[tuple[Stage, np.random.Generator]]:
    """One of each kind."""
    return [draw_stage(SEED, number) for number in range(len(KINDS))]


@pytest.fixture(scope="module")
def clips(stages) -> dict[str, AnnotatedClip]:
    """A clip of each kind, its frames without noise and changing light, and most of them blank."""
    camera = SparseCamera(**vars(PERFECT))
    return {
        kind: render_stage("", Stage(stage.scene, camera, stage.share), copy(rng))
        for kind, (stage, rng) in zip(KINDS, stages, strict=True)
    }


def gaps(visible: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame and end of each stretch in which a point [T] that is seen again is not seen."""
    edges = np.diff(visible.astype(int))
    ends = np.flatnonzero(edges == 1) + 1
    starts = np.flatnonzero(edges == -1) + 1
    return [(int(starts[starts < end].max()), int(end)) for end in ends if (starts < end).any()]


def gaps_of_all(clip: AnnotatedClip) -> list[tuple[int, int]]:
    return [gap for track in clip.visible[FIRST] for gap in gaps(track)]


def test_names_tell_the_kind():
    names = [get_clip_name(number) for number in range(COUNT)]
    assert len(set(names)) == COUNT
    kinds = [name.rpartition("-")[0] for name in names]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 2)


def test_points_are_followed_to_the_end(clips):
    for clip in clips.values():
        assert clip.frames.shape == (FRAMES, 256, 256, 3)
        assert clip.points.shape == (40, FRAMES, 2) and clip.known_outside
        assert clip.visible[np.arange(40), PICKED].all()
        # In the last fifth, too, a good part of those of the first frame is seen.
        assert clip.visible[FIRST, -50:].any(axis=1).mean() > 0.6


def test_deforming_objects_turn_and_stretch_until_the_end(clips, stages):
    clip, (stage, _) = clips["deforming"], stages[0]
    assert clip.visible[FIRST].mean() > 0.8
    for layer in stage.scene.layers[1:]:
        side = np.array([[0.0, 0.0], [10.0, 0.0]])
        across = [
            np.diff(layer.motion.forward(side, float(t)), axis=0)[0] for t in range(0, FRAMES, 10)
        ]
        angles = np.unwrap([np.arctan2(y, x) for x, y in across])
        lengths = np.linalg.norm(across, axis=1)
        for half in (slice(0, 12), slice(12, None)):
            assert np.ptp(angles[half]) > 0.2
            assert lengths[half].max() > 1.1 * lengths[half].min()


def test_bars_hide_points_again_and_again(clips):
    clip = clips["passing"]
    found = [(start, end) for start, end in gaps_of_all(clip) if 5 <= end - start <= 40]
    assert len(found) > 32, "more than one a point"
    middles = np.array([(start + end) / 2 for start, end in found])
    for part in range(3):
        assert ((middles >= part * FRAMES / 3) & (middles < (part + 1) * FRAMES / 3)).any()


def test_a_roaming_camera_loses_points_for_long_and_comes_back(clips):
    clip = clips["roaming"]
    outside = ~((clip.points >= 0) & (clip.points < clip.size)).all(axis=-1)
    assert 0.3 < outside[FIRST].mean() < 0.8
    long = [end - start for start, end in gaps_of_all(clip) if end - start > 30]
    assert len(long) > 16
    returned = clip.visible[FIRST, FRAMES // 2 :].any(axis=1).mean()
    assert returned > 0.8


def test_the_frame_never_shows_what_is_beyond_a_backdrop(stages):
    """There the picture is mirrored, so a point would be seen twice."""
    x = np.linspace(0, 256, 9)
    border = np.concatenate([np.stack([x, np.full(9, y)], axis=1) for y in (0.0, 256.0)])
    border = np.concatenate([border, border[:, ::-1]])
    for stage, _ in stages:
        backdrop = stage.scene.layers[0]
        half = np.array(backdrop.picture.shape[1::-1]) / 2
        for time in map(float, range(FRAMES)):
            assert (np.abs(backdrop.motion.inverse(border, time)) <= half).all()


def test_a_visible_point_keeps_the_grey_value_of_its_query(clips):
    for clip in clips.values():
        grey = clip.frames.mean(axis=-1, keepdims=True)
        margin = ((clip.points > 5) & (clip.points < clip.size - 5)).all(axis=-1) & clip.visible
        true, beside = [], []
        for time in RENDERED:
            for start in (0, 83):
                at = (start == PICKED) & margin[:, time] & margin[:, start] & (time != start)
                wanted = sample_bilinearly(grey[start], clip.points[at, start])
                for shift, errors in ((0.0, true), (3.0, beside)):
                    found = sample_bilinearly(grey[time], clip.points[at, time] + shift)
                    errors.extend(np.abs(found - wanted).ravel())
        assert len(true) > 25
        assert np.median(true) < 5
        assert np.median(beside) > 2.5 * np.median(true)


def test_clips_come_one_by_one_and_the_same_seed_gives_the_same(monkeypatch):
    """The frames of the next clip are not rendered before it is asked for."""
    shots = []

    def shoot(camera, scene, time, rng):
        shots.append(time)
        return rng.integers(0, 255, (scene.height, scene.width, 3), np.uint8)

    monkeypatch.setattr(Camera, "shoot", shoot)
    once, again = next(render_long(SEED)), render_stage("", *draw_stage(SEED, 0))
    assert shots == [float(time) for time in range(FRAMES)] * 2
    assert once.name == "deforming-00"
    np.testing.assert_array_equal(once.frames, again.frames)
    np.testing.assert_array_equal(once.points, again.points)
    (one, _), (other, _) = draw_stage(SEED, 0), draw_stage(SEED + 1, 0)
    middle = np.zeros(2)
    for first, second in zip(one.scene.layers, other.scene.layers, strict=True):
        apart = first.motion.forward(middle, 9.0) - second.motion.forward(middle, 9.0)
        assert np.linalg.norm(apart) > 1
