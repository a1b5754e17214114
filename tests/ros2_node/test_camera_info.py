"""The calibration that belongs to an image, and what is said where none does."""

import numpy as np

from doubles.ros_loopback import camera_info
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.calibration.camera_info import CameraInfo
from vditrack_ros.diagnostics import OK, WARN

SIZE = (120, 160)


class Log:
    def __init__(self):
        self.warnings = []

    def warning(self, text, **_):
        self.warnings.append(text)


def test_calibration_belongs_to_images_of_its_size():
    log = Log()
    info = CameraInfo(log, "/camera_info")
    assert info.camera_for(SIZE) is None
    info.update(camera_info(SIZE, 100.0))
    known = info.camera_for(SIZE)
    info.update(camera_info(SIZE, 100.0, stamp=NANOSECONDS_PER_SECOND))
    assert info.camera_for(SIZE) is known
    info.update(camera_info(SIZE, 200.0))
    assert info.camera_for(SIZE) is not known
    assert info.camera_for((480, 640)) is None and "160 x 120" in log.warnings[-1]
    assert info.describe(9.0, 1, needed=False)[1][0][0] == WARN
    halved = camera_info((240, 320), 100.0)
    halved.binning_x = halved.binning_y = 2
    info.update(halved)
    assert info.camera_for(SIZE) is not None
    assert info.describe(9.0, 1, needed=False) == ({"camera_info": "received"}, [])
    info.update(camera_info(SIZE, 0.0))
    assert info.camera_for(SIZE) is None and "not calibrated" in log.warnings[-1]


def test_a_calibration_with_nan_is_none_and_is_said():
    for name in ("k", "d"):
        log = Log()
        info = CameraInfo(log, "/camera_info")
        broken = camera_info(SIZE, 100.0)
        values = np.array(getattr(broken, name))
        values[2] = np.nan
        setattr(broken, name, values)
        for _ in range(2):
            info.update(broken)
        assert info.camera_for(SIZE) is None
        assert len(log.warnings) == 1
        for text in (log.warnings[0], info.describe(1.0, 1, needed=False)[1][0][1]):
            assert f"NaN or infinity in {name.upper()}" in text


def test_a_calibration_that_never_comes_is_said_once():
    log = Log()
    info = CameraInfo(log, "/cam/camera_info")
    assert info.describe(1.0, 0, needed=False) == ({"camera_info": "none received"}, [])
    for level, needed, publishers in ((OK, False, 0), (WARN, True, 0), (WARN, False, 1)):
        _, [(found, text)] = info.describe(6.0, publishers, needed=needed)
        assert found == level and "No camera_info has arrived on /cam/camera_info" in text
    assert len(log.warnings) == 1
