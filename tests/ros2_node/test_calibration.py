"""The calibration and depth that belong to an image."""

from types import SimpleNamespace

import numpy as np

from doubles.ros_loopback import camera_info
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.calibration import Calibration

SIZE = (120, 160)


class Log:
    def __init__(self):
        self.warnings = []

    def warning(self, text, **_):
        self.warnings.append(text)


def depth_message(stamp, metres, size=SIZE):
    data = np.full(size, metres, "<f4").tobytes()
    return SimpleNamespace(
        header=SimpleNamespace(
            stamp=SimpleNamespace(sec=0, nanosec=round(stamp * NANOSECONDS_PER_SECOND))
        ),
        height=size[0],
        width=size[1],
        encoding="32FC1",
        is_bigendian=0,
        step=4 * size[1],
        data=data,
    )


def test_depth_belongs_to_images_of_its_time_and_size():
    log = Log()
    calibration = Calibration(log)
    at = SimpleNamespace(sec=0, nanosec=NANOSECONDS_PER_SECOND // 2)
    assert calibration.depth_for(at, SIZE, 0.05) is None
    calibration.update_depth(depth_message(0.46, 2.0))
    assert (calibration.depth_for(at, SIZE, 0.05) == 2).all()
    assert calibration.depth_for(at, SIZE, 0.03) is None
    assert calibration.depth_for(at, (240, 320), 0.05) is None
    assert "aligned" in log.warnings[-1]
    broken = depth_message(0.5, 2.0)
    broken.encoding = "rgb8"
    calibration.update_depth(broken)
    assert calibration.depth_for(at, SIZE, 0.05) is None and "rgb8" in log.warnings[-1]


def test_calibration_belongs_to_images_of_its_size():
    log = Log()
    calibration = Calibration(log)
    assert calibration.camera_for(SIZE) is None
    calibration.update_camera_info(camera_info(SIZE, 100.0))
    known = calibration.camera_for(SIZE)
    calibration.update_camera_info(camera_info(SIZE, 100.0, stamp=NANOSECONDS_PER_SECOND))
    assert calibration.camera_for(SIZE) is known
    calibration.update_camera_info(camera_info(SIZE, 200.0))
    assert calibration.camera_for(SIZE) is not known
    assert calibration.camera_for((480, 640)) is None and "160 x 120" in log.warnings[-1]
    halved = camera_info((240, 320), 100.0)
    halved.binning_x = halved.binning_y = 2
    calibration.update_camera_info(halved)
    assert calibration.camera_for(SIZE) is not None
    calibration.update_camera_info(camera_info(SIZE, 0.0))
    assert calibration.camera_for(SIZE) is None
