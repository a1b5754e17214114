"""Undistortion, against the formulas of the distortion models."""

from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera


def camera_info(model: str, coefficients) -> SimpleNamespace:
    k = [500, 0, 319.5, 0, 510, 239.5, 0, 0, 1]
    whole = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0)
    return SimpleNamespace(
        **{"height": 480, "width": 640, "binning_x": 0, "binning_y": 0, "roi": whole},
        **{"distortion_model": model, "d": array("d", coefficients), "k": np.array(k)},
    )


def distorted(model: str, d, x, y):
    """The models' formulas, as OpenCV's documentation states them."""
    r2 = x * x + y * y
    if model.lower() in ("equidistant", "fisheye"):
        d = d or [0, 0, 0, 0]
        r = np.sqrt(r2)
        a = np.arctan(r)
        bent = a * (1 + d[0] * a**2 + d[1] * a**4 + d[2] * a**6 + d[3] * a**8)
        return x * bent / r, y * bent / r
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = [*d, *[0] * 12][:12]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2**2,
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2**2,
    )


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", []),
        ("", []),
        ("plumb_bob", [-0.3, 0.1, 0.001, -0.002, 0.01]),
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.002]),
        ("rational_polynomial", [0.3, -0.1, 0.001, 0.002, 0.02, 0.4, -0.05, 0.01]),
        ("equidistant", [0.01, -0.02, 0.003, 0.001]),
        ("equidistant", []),
        ("equidistant", [0, 0, 0, 0]),
        # As drivers write them: other names, more coefficients than the name has, zeros appended.
        ("plumb_bob", [0.3, -0.1, 0.001, 0.002, 0.02, 0.4, -0.05, 0.01]),
        ("plumb_bob", [0.2, 0.1, 1e-3, 2e-3, 0.02, 0.1, 0.03, 0.01, 2e-3, 1e-3, -1e-3, 2e-3]),
        (
            "plumb_bob",
            [0.2, 0.1, 1e-3, 2e-3, 0.02, 0.1, 0.03, 0.01, 2e-3, 1e-3, -1e-3, 2e-3, 0, 0],
        ),
        ("rational_polynomial", [-0.2, 0.05, 0.001, -0.002, 0.01]),
        ("fisheye", [0.01, -0.02, 0.003, 0.001]),
        ("fisheye", [0, 0, 0, 0]),
        ("fisheye", []),
        ("Equidistant", [0.01, -0.02, 0.003, 0.001, 0]),
        ("none", [0, 0, 0, 0, 0]),
    ],
)
def test_rays(model, coefficients):
    x, y = np.random.default_rng(0).uniform(-0.6, 0.6, (2, 50))
    bent_x, bent_y = distorted(model, coefficients, x, y)
    # The principal point counts from the first pixel's centre, points from its corner.
    points = np.stack([500 * bent_x + 319.5 + 0.5, 510 * bent_y + 239.5 + 0.5], axis=1)
    camera = Camera.from_info(camera_info(model, coefficients))
    rays = camera.unproject(points.astype(np.float32))
    np.testing.assert_allclose(rays, np.stack([x, y], axis=1), atol=2e-6)
    assert camera.unproject(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_cameras_without_a_calibration():
    unknown = camera_info("plumb_bob", [])
    unknown.k = np.zeros(9)
    assert Camera.from_info(unknown) is None
    for model, d in (
        ("fov", [0.9]),
        # Zeros do not make a pinhole of any lens.
        ("double_sphere", [0, 0]),
        ("plumb_bob", [0.1] * 6),
        ("equidistant", [0.1] * 5),
        ("fisheye", [0.1, 0.1]),
    ):
        with pytest.raises(InputError, match=f"'{model}' with {len(d)} coefficients"):
            Camera.from_info(camera_info(model, d))


@pytest.mark.parametrize(("name", "at"), [("k", 0), ("k", 4), ("k", 2), ("d", 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_calibration_with_nan_is_refused(name, at, value):
    info = camera_info("plumb_bob", [0.1, 0, 0, 0, 0])
    getattr(info, name)[at] = value
    with pytest.raises(InputError, match=f"NaN or infinity in {name.upper()}"):
        Camera.from_info(info)


@pytest.mark.parametrize("focal", [(-500, 510), (500, 0), (500, -510), (0, 510)])
def test_focal_lengths_are_positive(focal):
    info = camera_info("plumb_bob", [])
    info.k[0], info.k[4] = focal
    with pytest.raises(InputError, match="focal lengths"):
        Camera.from_info(info)
