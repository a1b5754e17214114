"""Synthetic scenes: the motion they report is the motion that is seen."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vditrack.synthetic.layers.camera_effects import PERFECT
from vditrack.synthetic.layers.clips import SyntheticClip, render_clip
from vditrack.synthetic.layers.scenes import Anchors, Layer, Motion, Scene, Waves, draw_scene
from vditrack.synthetic.layers.textures import draw_pattern
from vditrack_export.tiny.photos import load_photos
from vditrack_export.tiny.quadruples import make_quadruple

Floats = NDArray[np.float64]


def sliding(centre: tuple[float, float], swing: float, rate: float) -> Motion:
    """A motion along x only: centre + swing sin(rate t)."""
    base, amplitude = np.zeros(9), np.zeros((9, 1))
    base[:2] = centre
    amplitude[0] = swing
    waves = Waves(base, amplitude, np.full((9, 1), rate), np.zeros((9, 1)))
    return Motion(waves, aspect=1.0, ripple_rate=(0.1, 0.1), ripple_phase=(0.0, 0.0))


def plain(height: int, width: int, grey: int) -> NDArray[np.uint8]:
    picture = np.full((height, width, 4), grey, np.uint8)
    picture[..., 3] = 255
    return picture


def bilinear(picture: NDArray[np.uint8], x: float, y: float) -> Floats:
    """Colour at a raster position, worked out by hand."""
    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    right, down = x - 0.5 - column, y - 0.5 - row
    square = picture[row : row + 2, column : column + 2].astype(np.float64)
    above = square[0, 0] * (1 - right) + square[0, 1] * right
    below = square[1, 0] * (1 - right) + square[1, 1] * right
    return np.asarray(above * (1 - down) + below * down)


def test_a_motion_is_the_homography_and_ripple_it_says() -> None:
    base = np.array([50.0, 40.0, np.log(2), np.pi / 2, 0.0, 0.001, 0.0, 3.0, 0.0])
    still = Waves(base, np.zeros((9, 1)), np.zeros((9, 1)), np.zeros((9, 1)))
    motion = Motion(still, aspect=0.5, ripple_rate=(np.pi / 20, 0.0), ripple_phase=(0.0, 0.0))
    # (7, 10) ripples to (10, 10); twice as large and a quarter turn: (-20, 20); squeezed:
    # (-10, 20); the tilt divides by 1 + 0.001 * 10, about the centre.
    seen = motion.forward(np.array([[7.0, 10.0]]), time=3.0)
    np.testing.assert_allclose(seen, [[50 - 10 / 1.01, 40 + 20 / 1.01]], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_inverse_of_a_motion_undoes_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 96, 128)
    positions = rng.uniform(0, (128, 96), (50, 2))
    for layer in scene.layers:
        surface = layer.motion.inverse(positions, time=37.5)
        np.testing.assert_allclose(layer.motion.forward(surface, 37.5), positions, atol=1e-8)


def test_a_point_is_hidden_exactly_while_the_square_in_front_covers_it() -> None:
    backdrop = Layer(plain(200, 200, 60), sliding((64, 48), 0, 0), boundless=True)
    square = Layer(plain(20, 20, 200), sliding((64, 48), 40, 0.21))
    scene = Scene(96, 128, (backdrop, square))
    times = [float(t) for t in range(60)]
    xs = np.array([30.3, 64.2, 80.7])
    anchors = Anchors(np.zeros(3, np.int64), np.stack([xs - 64, np.zeros(3)], axis=1))
    points, visible = scene.track(anchors, times)
    centre = 64 + 40 * np.sin(0.21 * np.array(times))
    distance = np.abs(xs[:, None] - centre)
    # The silhouette is blurred over a pixel where the renderer interpolates it.
    clear = np.abs(distance - 10) > 0.6
    np.testing.assert_array_equal(visible[clear], (distance > 10)[clear])
    assert 0.1 < (~visible).mean() < 0.9
    np.testing.assert_allclose(points[..., 1], 48)
    for step in (0, 7, 22):
        frame = scene.render(times[step])
        for n in np.flatnonzero(clear[:, step]):
            expected = 60 if visible[n, step] else 200
            assert abs(int(frame[48, int(xs[n]), 0]) - expected) <= 1


def test_a_point_that_leaves_the_frame_is_unseen_and_returns() -> None:
    backdrop = Layer(plain(200, 200, 60), sliding((64, 48), 50, 0.3), boundless=True)
    scene = Scene(96, 128, (backdrop,))
    times = [float(t) for t in range(42)]
    anchors = Anchors(np.zeros(1, np.int64), np.array([[40.0, 0.0]]))
    points, visible = scene.track(anchors, times)
    x = 104 + 50 * np.sin(0.3 * np.array(times))
    np.testing.assert_allclose(points[0, :, 0], x, atol=1e-4)
    np.testing.assert_array_equal(visible[0], x < 128)
    changes = np.flatnonzero(np.diff(visible[0].astype(int)))
    assert len(changes) >= 2 and visible[0, 0] and visible[0, -1]


@pytest.mark.parametrize("seed", range(4))
def test_the_frame_shows_the_surface_of_a_point_where_its_track_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = smooth_scene(rng)
    times = [0.0, 13.0, 60.0]
    anchors = scene.anchor(rng.uniform(0, (128, 96), (150, 2)), 0.0)
    points, visible = scene.track(anchors, times)
    frames = [PERFECT.shoot(scene, time, rng) for time in times]
    true, shifted = [], []
    for n, step in np.argwhere(visible):
        surface = np.array(scene.layers[anchors.layer[n]].picture)
        x, y = anchors.surface[n] + np.array(surface.shape[1::-1]) / 2
        if not (1 < x < surface.shape[1] - 1 and 1 < y < surface.shape[0] - 1):
            continue  # Mirrored beyond the picture's edge.
        wanted = bilinear(surface, x, y)[:3]
        for offset, errors in ((0.0, true), (3.0, shifted)):
            px, py = points[n, step] + offset
            if 1 < px < 127 and 1 < py < 95:
                errors.append(np.abs(bilinear(frames[step], px, py) - wanted).mean())
    assert len(true) > 100
    assert np.median(true) < 1.5 and np.quantile(true, 0.9) < 4
    assert np.median(shifted) > 2 * np.median(true)


def smooth_scene(rng: np.random.Generator) -> Scene:
    """A random scene whose pictures have no edges for interpolation to blur."""
    scene = draw_scene(rng, 96, 128)
    layers = []
    for layer in scene.layers:
        picture = layer.picture.copy()
        picture[..., :3] = cv2.GaussianBlur(draw_pattern(rng, *picture.shape[:2]), (0, 0), 3)
        layers.append(Layer(picture, layer.motion, layer.boundless))
    return Scene(scene.height, scene.width, tuple(layers))


def equal(one: SyntheticClip, other: SyntheticClip) -> bool:
    return (
        np.array_equal(one.frames, other.frames)
        and np.array_equal(one.points, other.points)
        and np.array_equal(one.visible, other.visible)
    )


def test_the_same_seed_makes_the_same_clip() -> None:
    assert equal(render_clip(5, 48, 64, 4), render_clip(5, 48, 64, 4))
    assert not equal(render_clip(5, 48, 64, 4), render_clip(6, 48, 64, 4))


def test_a_clip_has_the_shapes_it_promises_and_starts_with_its_points_seen() -> None:
    clip = render_clip(1, 50, 70, frames=6, points=9)
    assert clip.frames.shape == (6, 50, 70, 3) and clip.frames.dtype == np.uint8
    assert clip.points.shape == (9, 6, 2) and clip.points.dtype == np.float32
    assert clip.visible.shape == (9, 6) and clip.visible.dtype == np.bool_
    assert clip.visible[:, 0].all() and (clip.query_frame == 0).all()


def test_motion_is_smooth() -> None:
    for seed in range(5):
        points = render_clip(seed, 96, 128, frames=12, points=40).points
        steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
        bends = np.linalg.norm(np.diff(points, n=2, axis=1), axis=-1)
        assert steps.max() < 25 and np.median(bends) < 0.5


def test_the_points_of_a_quadruple_come_from_all_of_its_frames() -> None:
    clip = make_quadruple(np.random.default_rng(3), 64, 64, (), points=40)
    assert clip.frames.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(np.bincount(clip.query_frame), [10, 10, 10, 10])
    assert clip.visible[np.arange(40), clip.query_frame].all()


def test_photographs_are_read_once_and_held_out_in_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        coarse = rng.integers(0, 255, (7, 8, 3), np.uint8)
        photo = cv2.resize(coarse, (240, 210), interpolation=cv2.INTER_NEAREST)
        photo[0, 0] = number
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), photo)
    cv2.imwrite(str(tmp_path / "99 double.png"), cv2.resize(photo, (480, 420)))
    cv2.imwrite(str(tmp_path / "98 flat.png"), np.full((300, 300, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "97 small.png"), rng.integers(0, 255, (100, 100, 3), np.uint8))
    (tmp_path / "96 broken.jpg").write_bytes(b"no picture")
    photos = load_photos([tmp_path])
    held_out = [int(photo[0, 0, 0]) for photo in photos.held_out]
    training = [int(photo[0, 0, 0]) for photo in photos.training]
    assert sorted(held_out + training) == list(range(60))
    assert held_out == [24, 25, 26, 27, 52, 53, 54, 55]
