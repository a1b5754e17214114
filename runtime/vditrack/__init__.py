"""Track any point in a camera stream with a pretrained video diffusion transformer."""

from vditrack.bundle import Bundle, Matching, load_bundle
from vditrack.errors import BackendError, BundleError, InputError, VditrackError
from vditrack.stream import Stream, StreamUpdate
from vditrack.tracker import Tracker
from vditrack.tracks import Tracks

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "InputError",
    "Matching",
    "Stream",
    "StreamUpdate",
    "Tracker",
    "Tracks",
    "VditrackError",
    "load_bundle",
]
