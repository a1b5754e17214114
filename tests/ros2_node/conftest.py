"""Fixtures of the node's tests."""

import pytest

from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from doubles.ros_loopback import open_peer
from vditrack_ros.parameters.settings import build_settings
from vditrack_ros.parameters.table import PARAMETERS

peer = pytest.fixture(open_peer)


@pytest.fixture(scope="session")
def settings():
    """The default settings."""
    return build_settings({parameter.name: parameter.default for parameter in PARAMETERS})


@pytest.fixture(scope="session")
def mask_bundle(tmp_path_factory):
    """The bundled model for points; mean colours for masks, which are fast and exact."""
    folder = tmp_path_factory.mktemp("parts")
    motion = write_passthrough(folder / "motion", rows=12, columns=16)
    single = write_passthrough(folder / "appearance", frames=1, rows=12, columns=16)
    write_propagating(folder / "whole", motion=motion.root, appearance=single.root)
    return folder / "whole"
