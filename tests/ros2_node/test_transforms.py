"""Transforms between frames, and positions that have none."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from std_msgs.msg import Header

from vditrack.errors import InputError
from vditrack.ros_messages.positions import Positions, Scale
from vditrack_ros.calibration.target_frame import TargetFrame
from vditrack_ros.transforms import FrameTransforms, RigidTransform, import_tf2


def message(rotation, translation, factor=1.0):
    """A geometry_msgs/Transform of a rotation vector."""
    angle = np.linalg.norm(rotation)
    axis = rotation / angle if angle else np.zeros(3)
    x, y, z = axis * np.sin(angle / 2) * factor
    turn = SimpleNamespace(x=x, y=y, z=z, w=np.cos(angle / 2) * factor)
    shift = SimpleNamespace(**dict(zip("xyz", translation, strict=True)))
    return SimpleNamespace(translation=shift, rotation=turn)


def test_rigid_transforms():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 3)).astype(np.float32)
    for _ in range(10):
        rotation, translation = rng.normal(size=3), rng.normal(size=3)
        transform = RigidTransform.from_message(message(rotation, translation, factor=2.0))
        expected = points @ cv2.Rodrigues(rotation)[0].T + translation
        np.testing.assert_allclose(transform.apply(points), expected, atol=1e-5)


def test_a_position_without_a_distance_has_none_in_another_frame(settings):
    log = []
    transforms = SimpleNamespace(
        look_up=lambda *_: RigidTransform(np.eye(3), np.array([0.0, 0.0, 5.0]))
    )
    target = TargetFrame(SimpleNamespace(warning=lambda text, **_: log.append(text)), transforms)
    chosen = SimpleNamespace(**{**vars(settings), "target_frame": "base_link"})
    xyz = np.float32([[0, 0, 1], [1, 2, 3], [np.nan] * 3])
    positions = Positions(xyz, np.uint8([Scale.PLANE, Scale.METRES, Scale.UNKNOWN]))
    moved = target.transform(positions, Header(frame_id="camera"), chosen)
    assert moved.scale.tolist() == [Scale.UNKNOWN, Scale.METRES, Scale.UNKNOWN]
    np.testing.assert_array_equal(moved.xyz[1], [1, 2, 8])
    assert np.isnan(moved.xyz[[0, 2]]).all()
    assert "without depth" in log[0]


def test_without_tf2_the_reason_is_said():
    with pytest.raises(InputError, match=r"target_frame 'x' needs tf2.*tf2-ros-py"):
        import_tf2("target_frame 'x'")
    with pytest.raises(InputError, match="a transform from 'map' to 'camera' needs tf2"):
        FrameTransforms(None).look_up("camera", "map", Header().stamp)
