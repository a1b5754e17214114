"""What `colcon test` checks: the node loads with the distribution's rclpy and messages."""

import importlib
import pkgutil

import vditrack_ros


def test_every_module_loads() -> None:
    """A distribution whose rclpy or messages lack something fails here, by the module's name."""
    found = [name for _, name, _ in pkgutil.walk_packages(vditrack_ros.__path__, "vditrack_ros.")]
    assert "vditrack_ros.main" in found
    for name in found:
        importlib.import_module(name)
