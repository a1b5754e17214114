"""The rendered benchmark: each clip holds what its name says, and its truth is what is seen."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from doubles.interpolation import sample_bilinearly
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.challenges import KINDS
from vditrack.synthetic.layers.scenes import Layer, Motion, Scene
from vditrack.synthetic.layers.suite import (
    COUNT,
    draw_stage,
    get_clip_name,
    render_stage,
    render_suite,
)
from vditrack.synthetic.layers.trajectories import pass_through, stay_at, sway, swing
from vditrack.synthetic.point_sampling import pick_pixels

pytestmark = pytest.mark.slow

SEED = 7
PICKED = np.repeat([0, 16, 32], [40, 12, 12])
"""The frame in which each point of a clip was picked."""


@pytest.fixture(scope="module")
def clips() -> list[AnnotatedClip]:
    """The whole suite, its frames without noise and blur, and blank where no test looks."""
    return [render_truth(SEED, number) for number in range(COUNT)]


class SparseCamera(Camera):
    """A perfect camera that renders only every fourth frame, to save time."""

    def shoot(self, scene: Scene, time: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        if time % 4:
            return np.zeros((scene.height, scene.width, 3), np.uint8)
        return super().shoot(scene, time, rng)


def render_truth(seed: int, number: int) -> AnnotatedClip:
    stage, rng = draw_stage(seed, number)
    camera = SparseCamera(**vars(PERFECT))
    return render_stage(get_clip_name(number), replace(stage, camera=camera), rng)


def of_kind(clips: list[AnnotatedClip], kind: str) -> list[AnnotatedClip]:
    return [clip for clip in clips if clip.name.startswith(f"{kind}-")]


def inside(clip: AnnotatedClip) -> NDArray[np.bool_]:
    return ((clip.points >= 0) & (clip.points < clip.size)).all(axis=-1)


def gaps(visible: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame and end of each stretch in which a point [T] that is seen again is not seen."""
    edges = np.diff(visible.astype(int))
    ends = np.flatnonzero(edges == 1) + 1
    starts = np.flatnonzero(edges == -1) + 1
    return [(int(starts[starts < end].max()), int(end)) for end in ends if (starts < end).any()]


def test_the_suite_has_three_clips_of_each_kind(clips):
    kinds = [clip.name.rpartition("-")[0] for clip in clips]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 3)
    assert len({clip.name for clip in clips}) == COUNT


def test_every_clip_has_the_shapes_it_promises_and_each_point_is_seen(clips):
    for clip in clips:
        frames, count = len(clip.frames), len(clip.points)
        assert clip.frames.dtype == np.uint8 and clip.frames.shape == (48, 256, 256, 3)
        assert clip.points.dtype == np.float32 and clip.points.shape == (count, frames, 2)
        assert clip.visible.dtype == np.bool_ and clip.visible.shape == (count, frames)
        assert clip.masks.dtype == np.uint8 and clip.masks.shape == clip.frames.shape[:3]
        assert count == 64 and clip.visible.any(axis=1).all() and np.isfinite(clip.points).all()
        assert clip.visible[np.arange(count), PICKED].all() and inside(clip)[clip.visible].all()


def test_clips_come_when_asked_for_and_do_not_depend_on_each_other():
    first = next(render_suite(SEED))
    set_up, rng = draw_stage(SEED, 0)
    again = render_stage(get_clip_name(0), set_up, rng)
    for name in ("name", "frames", "points", "visible", "masks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_seeds_and_numbers_make_different_clips():
    one, other, later = (draw_stage(*key)[0].scene.render(0.0) for key in ((1, 4), (2, 4), (1, 9)))
    assert np.abs(one.astype(int) - other).mean() > 10
    assert np.abs(one.astype(int) - later).mean() > 10


def test_a_visible_point_keeps_the_colour_of_its_surface(clips):
    """On a perfect camera, judged by the frames alone; beside the track colours differ."""
    true, beside = [], []
    for clip in clips:
        margin = ((clip.points > 4) & (clip.points < 252)).all(axis=-1)
        for step in range(0, 48, 4):
            for shift, errors in ((0.0, true), (3.0, beside)):
                for start in np.unique(PICKED):
                    at = (start == PICKED) & clip.visible[:, step] & margin[:, step]
                    at &= margin[np.arange(64), PICKED] & (step != start)
                    wanted = sample_bilinearly(clip.frames[start], clip.points[at, start])
                    found = sample_bilinearly(clip.frames[step], clip.points[at, step] + shift)
                    errors.extend(np.abs(found - wanted).mean(axis=1))
    assert len(true) > 3000
    # A quarter of a pixel beside the track it is 3, and 9 for one in ten.
    assert np.median(true) < 1.5 and np.quantile(true, 0.9) < 6
    assert np.median(beside) > 10 * np.median(true)


def test_a_visible_point_lies_on_the_mask_of_its_layer(clips):
    for clip in clips:
        columns, rows = np.floor(clip.points).astype(int).transpose(2, 0, 1)
        index = np.arange(len(clip.points))
        mine = clip.masks[PICKED, rows[index, PICKED], columns[index, PICKED]]
        n, t = np.nonzero(clip.visible)
        at_pixel = clip.masks[t, rows[n, t], columns[n, t]] == mine[n]
        assert at_pixel.mean() > 0.99
        # The mask is drawn at pixel centres, and a point is up to half a pixel off them.
        edge = np.pad(clip.masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
        around = np.zeros(len(n), bool)
        for i, j in np.ndindex(3, 3):
            around |= edge[t, rows[n, t] + i, columns[n, t] + j] == mine[n]
        assert around.all()


def test_every_point_says_on_which_object_it_lies(clips):
    """Where it was picked the mask shows it, since no point is picked near an edge."""
    for clip in clips:
        columns, rows = np.floor(clip.points[np.arange(64), PICKED]).astype(int).T
        np.testing.assert_array_equal(clip.objects, clip.masks[PICKED, rows, columns])
        assert clip.objects.dtype == np.uint8


def test_masks_show_what_is_drawn_in_front():
    grey, white = (np.full((40, 40, 4), level, np.uint8) for level in (90, 255))
    grey[..., 3] = 255
    layers = [Layer(grey, still(32, 32), boundless=True)]
    layers += [Layer(white, still(x, 30)) for x in (20.0, 44.0)]
    mask = Scene(64, 64, tuple(layers)).mask(0.0)
    expected = np.zeros((64, 64), np.uint8)
    expected[10:50, 0:40] = 1
    expected[10:50, 24:64] = 2
    np.testing.assert_array_equal(mask, expected)


def still(x: float, y: float) -> Motion:
    return Motion(stay_at(x, y), 1.0, (0.1, 0.1), (0.0, 0.0))


def test_drifting_points_move_and_not_as_an_affine_map(clips):
    for clip in of_kind(clips, "drift"):
        objects = clip.masks[0][tuple(np.floor(clip.points[:40, 0]).astype(int).T[::-1])]
        travelled = np.linalg.norm(clip.points[:40, 24] - clip.points[:40, 0], axis=-1)
        assert np.median(travelled[objects == 0]) < 16 < np.median(travelled[objects > 0])
        residuals = []
        for index in range(1, 5):
            mine = np.flatnonzero(objects == index)
            if len(mine) < 5:
                continue
            before = np.column_stack([clip.points[mine, 0], np.ones(len(mine))])
            residuals.append(np.linalg.lstsq(before, clip.points[mine, 24], rcond=None)[1].max())
        assert max(residuals) > 1


def test_occluded_points_come_out_again_after_3_to_15_frames(clips):
    for clip in of_kind(clips, "occlusion"):
        hidden = ~clip.visible & inside(clip)
        passed = [
            any(3 <= end - start <= 15 and hidden[n, start:end].all() for start, end in gaps(seen))
            for n, seen in enumerate(clip.visible)
        ]
        assert np.mean(passed) >= 0.2
        # Hidden by something, not out of the picture.
        covered = [hidden[n, a:b].all() for n, v in enumerate(clip.visible) for a, b in gaps(v)]
        assert np.mean(covered) > 0.8


def test_leaving_points_leave_the_picture_and_return(clips):
    for clip in of_kind(clips, "leaving"):
        away = ~inside(clip)
        returned = [
            any(away[n, start:end].all() for start, end in gaps(seen))
            for n, seen in enumerate(clip.visible)
        ]
        assert np.mean(returned) >= 0.2


def test_blurred_clips_are_dimmed_blurred_and_noisy():
    for number in range(COUNT):
        if not get_clip_name(number).startswith("blur-and-light"):
            continue
        set_up, rng = draw_stage(SEED, number)
        scene, quiet = set_up.scene, replace(set_up.camera, noise=0.0)
        lit = replace(quiet, shutter=0.0, blur=0.0)
        moments = range(0, 48, 6)
        sharp = [lit.shoot(scene, float(time), rng) for time in moments]
        blurred = [quiet.shoot(scene, float(time), rng) for time in moments]
        unlit = [scene.render(float(time)) for time in moments]
        changes = [one.mean() - other.mean() for one, other in zip(sharp, unlit, strict=True)]
        assert np.ptp(changes) > 15
        assert np.mean([*map(roughness, blurred)]) < 0.85 * np.mean([*map(roughness, sharp)])
        noisy = set_up.camera.shoot(scene, 6.0, rng)
        assert np.std(noisy.astype(float) - blurred[1]) > 3


def roughness(frame: NDArray[np.uint8]) -> float:
    return float(np.abs(np.diff(frame.astype(float), axis=1)).mean())


def test_no_other_objects_look_alike(clips):
    assert {clip.name.rpartition("-")[0] for clip in clips if clip.alike} == {"lookalikes"}


def test_lookalikes_share_a_picture_and_cover_one_another(clips):
    for clip in of_kind(clips, "lookalikes"):
        scene = draw_stage(SEED, int(clip.name[-2:]))[0].scene
        alike = scene.layers[1:]
        assert 2 <= len(alike) <= 4
        assert clip.alike == tuple(range(1, len(alike) + 1))
        for layer in alike[1:]:
            np.testing.assert_array_equal(layer.picture, alike[0].picture)
        overlap, touched = 0.0, set()
        for time in range(48):
            whole = [Scene(256, 256, (scene.layers[0], one)).mask(float(time)) > 0 for one in alike]
            for a in range(len(alike)):
                for b in range(a):
                    shared = (whole[a] & whole[b]).sum() / min(whole[a].sum(), whole[b].sum())
                    overlap = max(overlap, shared)
                    touched |= {a, b} if shared > 0.1 else set()
        assert overlap > 0.4 and touched == set(range(len(alike)))
        # Where they start they can be told apart.
        assert set(np.unique(clip.masks[0])) == set(range(len(alike) + 1))
        hidden = ~clip.visible & inside(clip)
        assert np.mean(hidden.sum(axis=1) >= 2) >= 0.2


def test_a_crossing_runs_through_its_middle_at_its_moment_and_speed():
    path = pass_through((100.0, 80.0), moment=20.0, heading=np.pi / 6, speed=8.0, reach=400.0)
    x, y, log_scale, angle, *rest = path.at(20.0)
    np.testing.assert_allclose([x, y, log_scale, angle], [100, 80, 0, np.pi / 6], atol=1e-9)
    assert not any(rest)
    along = (path.at(20.5) - path.at(19.5))[:2]
    np.testing.assert_allclose(along, [8 * np.sqrt(3) / 2, 4.0], rtol=1e-4)


def test_paths_add_up():
    rng = np.random.default_rng(0)
    sways = sway(rng, (30, 60), y=3.0, angle=0.2)
    path = stay_at(10.0, 20.0) + swing(0.1, 0.4, x=5.0, ripple_y=2.0) + sways
    wanted = sways.at(7.0)
    wanted += [10 + 5 * np.sin(1.1), 20, 0, 0, 0, 0, 0, 0, 2 * np.sin(1.1)]
    np.testing.assert_allclose(path.at(7.0), wanted, rtol=1e-12)
    extremes = np.abs([sways.at(float(t)) for t in range(600)]).max(axis=0)
    assert 1.4 < extremes[1] <= 3 and 0.09 < extremes[3] <= 0.2 and extremes[[0, 2, 8]].max() == 0


def test_points_are_picked_off_edges_and_shared_out():
    labels = np.zeros((40, 40), np.uint8)
    labels[10:20, 10:20] = 1
    labels[30, 30] = 2
    rng = np.random.default_rng(1)
    positions = pick_pixels(rng, labels, labels > 0, 400, share=0.25)
    on = ((positions > 11) & (positions < 19)).all(axis=1)
    assert on.sum() == 100 and (positions % 1 == 0.5).all()
    assert positions.min() >= 1.5 and positions.max() <= 38.5
    near = ((positions > 9) & (positions < 21)).all(axis=1)
    assert not (near & ~on).any() and not (np.abs(positions - 30.5) < 1.5).all(axis=1).any()
    alone = pick_pixels(rng, labels, labels > 7, 30, share=0.5)
    assert len(alone) == 30
