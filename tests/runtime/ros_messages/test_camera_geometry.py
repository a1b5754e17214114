"""Rays and projections, against OpenCV and the definition of a pinhole camera."""

from array import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.depth_images import DepthImage
from vditrack.ros_messages.positions import Positions, Scale, place_by_depth, place_on_plane

K = (500.0, 0.0, 321.5, 0.0, 480.0, 236.25, 0.0, 0.0, 1.0)
MODELS = {
    "plumb_bob": [-0.31, 0.12, 0.0011, -0.0007, -0.02],
    "rational_polynomial": [5.1, 2.2, 0.0009, -0.0006, 0.1, 5.4, 3.6, 0.5],
    "equidistant": [0.021, -0.012, 0.006, -0.002],
}


def camera_info(model="plumb_bob", d=(), k=K, **others) -> CameraInfo:
    # As a driver fills it: arrays, of doubles.
    return CameraInfo(k=np.array(k), d=array("d", d), distortion_model=model, **others)


def directions() -> np.ndarray:
    """Directions [63, 2] on the plane z = 1, over most of what the camera of K sees."""
    grid = np.meshgrid(np.linspace(-0.55, 0.55, 9), np.linspace(-0.4, 0.4, 7))
    return np.stack(grid, axis=-1).reshape(-1, 2)


def projected(model: str, rays: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] of rays by OpenCV, which counts from the first pixel's centre."""
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    points = np.column_stack([rays, np.ones(len(rays))])[:, None]
    matrix = np.array(K).reshape(3, 3)
    return project(points, np.zeros(3), np.zeros(3), matrix, np.array(MODELS[model]))[0][:, 0]


@pytest.mark.parametrize("model", MODELS)
def test_rays_undo_the_lens(model):
    camera = Camera.from_info(camera_info(model, MODELS[model]))
    seen = (projected(model, directions()) + 0.5).astype(np.float32)
    # A pixel is 2 thousandths.
    np.testing.assert_allclose(camera.unproject(seen), directions(), atol=2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_pixels_are_where_the_lens_puts_them(model):
    camera = Camera.from_info(camera_info(model, MODELS[model]))
    depths = np.linspace(0.3, 9, 63)[:, None]
    points = np.column_stack([directions(), np.ones(63)]) * depths
    np.testing.assert_allclose(
        camera.project(points), projected(model, directions()) + 0.5, atol=1e-3
    )


@pytest.mark.parametrize("model", ["", "plumb_bob", "equidistant"])
def test_without_distortion_a_camera_is_a_pinhole_or_an_even_fisheye(model):
    camera = Camera.from_info(camera_info(model, [0.0] * 4 if model else []))
    (x, y) = camera.unproject(np.float32([[421.5 + 0.5, 236.25 + 0.5]]))[0]
    angle = 100 / 500
    assert x == pytest.approx(np.tan(angle) if model == "equidistant" else angle, rel=1e-6)
    assert y == pytest.approx(0, abs=1e-6)


def test_a_camera_that_is_not_calibrated_says_so():
    assert Camera.from_info(CameraInfo()) is None


@pytest.mark.parametrize(
    ("model", "d"), [("kannala", [0.1] * 4), ("plumb_bob", [0.1] * 3), ("", [0.1] * 5)]
)
def test_an_unknown_lens_is_refused(model, d):
    with pytest.raises(InputError, match=f"'{model}' with {len(d)} coefficients"):
        Camera.from_info(camera_info(model, d))


def test_a_pixel_that_the_lens_shows_nothing_in_has_no_ray():
    # r (1 - 0.3 r²) is greatest at r² = 1/0.9, and is 0.703 there: 351 pixels from the centre.
    camera = Camera.from_info(camera_info("plumb_bob", [-0.3, 0, 0, 0, 0]))
    near, far = camera.unproject(np.float32([[322 + 330, 236.75], [322 + 380, 236.75]]))
    assert np.isfinite(near).all()
    assert np.isnan(far).all()


def test_what_is_behind_the_camera_has_no_pixel():
    camera = Camera.from_info(camera_info())
    pixels = camera.project(np.float32([[0, 0, -1], [1, 1, 0], [np.nan, 0, 1], [0, 0, 1]]))
    assert np.isnan(pixels[:3]).all()
    np.testing.assert_allclose(pixels[3], [322, 236.75])


def test_binning_and_region_of_interest_move_no_ray():
    """The same light falls on the same part of the sensor, however its pixels are read."""
    info = camera_info("plumb_bob", MODELS["plumb_bob"])
    whole = Camera.from_info(info)
    info.binning_x, info.binning_y = 2, 4
    info.roi = RegionOfInterest(x_offset=40, y_offset=80, width=400, height=240)
    part = Camera.from_info(info)
    on_sensor = np.float32([[40, 80], [141, 202], [440, 320]])
    published = np.float32([[0, 0], [50.5, 30.5], [200, 60]])
    np.testing.assert_allclose(part.unproject(published), whole.unproject(on_sensor), atol=1e-6)


def test_no_points_are_no_trouble():
    camera = Camera.from_info(camera_info())
    nothing = np.zeros((0, 2), np.float32)
    depth = DepthImage.from_values(np.ones((4, 4), np.float32))
    assert place_by_depth(nothing, camera, depth).xyz.shape == (0, 3)
    assert place_on_plane(nothing, camera).xyz.shape == (0, 3)
    assert camera.project(np.zeros((0, 3))).shape == (0, 2)


def test_depth_places_a_point_in_metres():
    camera = Camera.from_info(camera_info())
    depth = np.arange(480 * 640, dtype=np.float32).reshape(480, 640) / 1000
    points = np.float32([[10.5, 20.5], [10.01, 20.99], [11.0, 20.5], [639.9, 479.9]])
    placed = place_by_depth(points, camera, DepthImage.from_values(depth))
    xyz = placed.xyz
    assert (placed.scale == Scale.METRES).all()
    # Each has the depth of its own pixel.
    np.testing.assert_allclose(
        xyz[:, 2], [20 * 0.64 + 0.010] * 2 + [20 * 0.64 + 0.011, 479 * 0.64 + 0.639], rtol=1e-6
    )
    expected = 12.81 * np.array([(10 - 321.5) / 500, (20 - 236.25) / 480, 1])
    np.testing.assert_allclose(xyz[0], expected, rtol=1e-5)
    np.testing.assert_allclose(camera.project(xyz), points, atol=1e-3)


def test_depth_that_is_unknown_places_nothing():
    camera = Camera.from_info(camera_info())
    depth = np.full((480, 640), 2.0, np.float32)
    depth[20, 10] = np.nan
    points = np.float32([[10.5, 20.5], [640.0, 20.5], [-0.01, 20.5], [11.0, 20.5]])
    placed = place_by_depth(points, camera, DepthImage.from_values(depth))
    xyz = placed.xyz
    assert placed.scale.tolist() == [0, 0, 0, 2]
    assert np.isnan(xyz[:3]).all(axis=1).all()
    assert np.isfinite(xyz[3]).all()


def test_without_depth_points_are_on_the_plane_and_without_calibration_nowhere():
    points = np.float32([[322.0, 236.75], [10.0, 400.0]])
    camera = Camera.from_info(camera_info())
    placed = place_on_plane(points, camera)
    np.testing.assert_array_equal(placed.xyz[:, 2], 1)
    assert placed.scale.tolist() == [Scale.PLANE] * 2
    nowhere = Positions.unknown(2)
    assert np.isnan(nowhere.xyz).all() and nowhere.scale.tolist() == [Scale.UNKNOWN] * 2
