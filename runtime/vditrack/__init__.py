"""Track any point in a camera stream with a pretrained video diffusion transformer."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from vditrack.input_checks.text import CleanRecords

if TYPE_CHECKING:
    from vditrack.bundle.configuration import Matching, Propagation
    from vditrack.bundle.folder import Bundle, load_bundle
    from vditrack.errors import BackendError, BundleError, InputError, VditrackError
    from vditrack.points.tracks import Tracks
    from vditrack.streams.mask_stream import MaskStream, MaskUpdate
    from vditrack.streams.point_stream import Stream, StreamUpdate
    from vditrack.streams.realtime import LiveStream, LiveUpdate
    from vditrack.tracker import Tracker

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "InputError",
    "LiveStream",
    "LiveUpdate",
    "MaskStream",
    "MaskUpdate",
    "Matching",
    "Propagation",
    "Stream",
    "StreamUpdate",
    "Tracker",
    "Tracks",
    "VditrackError",
    "load_bundle",
]

_MODULES = {
    "BackendError": "errors",
    "Bundle": "bundle.folder",
    "BundleError": "errors",
    "InputError": "errors",
    "LiveStream": "streams.realtime",
    "LiveUpdate": "streams.realtime",
    "MaskStream": "streams.mask_stream",
    "MaskUpdate": "streams.mask_stream",
    "Matching": "bundle.configuration",
    "Propagation": "bundle.configuration",
    "Stream": "streams.point_stream",
    "StreamUpdate": "streams.point_stream",
    "Tracker": "tracker",
    "Tracks": "points.tracks",
    "VditrackError": "errors",
    "load_bundle": "bundle.folder",
}

# Messages quote names from files and lines of libraries.
logging.getLogger("vditrack").addFilter(CleanRecords())

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is first used: the doctor must run where OpenCV does not load."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
