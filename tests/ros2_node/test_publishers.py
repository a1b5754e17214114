"""Velocities of rays."""

from types import SimpleNamespace

import numpy as np

from vditrack_ros.points.publishers import compute_ray_velocities


def test_velocities_of_rays():
    def update(stamp, ids, visible):
        ids = np.array(ids)
        return SimpleNamespace(stamp=stamp, ids=ids, visible=np.array(visible))

    before = update(1.0, [1, 2, 4, 5], [True, False, True, True])
    rays_before = np.array([[0, 0], [0, 0], [1, 1], [np.nan, 0]], np.float32)
    now = update(1.5, [1, 2, 3, 4, 5], [True] * 5)
    rays = np.array([[0.1, 0.2], [1, 1], [1, 1], [1, 0.5], [0, 0]], np.float32)
    expected = [[0.2, 0.4], [0, 0], [0, 0], [0, -1], [0, 0]]
    found = compute_ray_velocities((before, rays_before), now, rays)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not compute_ray_velocities(None, now, rays).any()
