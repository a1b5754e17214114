"""Track any point in a camera stream with a pretrained video diffusion transformer."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vditrack.bundle import Bundle, Matching, Propagation, load_bundle
    from vditrack.errors import BackendError, BundleError, InputError, VditrackError
    from vditrack.mask_stream import MaskStream, MaskUpdate
    from vditrack.stream import Stream, StreamUpdate
    from vditrack.tracker import Tracker
    from vditrack.tracks import Tracks

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "InputError",
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
    "Bundle": "bundle",
    "BundleError": "errors",
    "InputError": "errors",
    "MaskStream": "mask_stream",
    "MaskUpdate": "mask_stream",
    "Matching": "bundle",
    "Propagation": "bundle",
    "Stream": "stream",
    "StreamUpdate": "stream",
    "Tracker": "tracker",
    "Tracks": "tracks",
    "VditrackError": "errors",
    "load_bundle": "bundle",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for only then: the doctor must run where OpenCV does not load."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
