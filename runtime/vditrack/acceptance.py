"""The acceptance test: tracks of rendered clips that every engine of a bundle has to reproduce.

The clips are the same wherever they are rendered. A bundle carries the tracks that its graphs gave
at export, in ``gate.npz``. A machine that runs engines compares their tracks with these, and does
not need to be able to run the graphs themselves.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.configuration import Matching
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import Input
from vditrack.errors import BundleError
from vditrack.features.extractor import FeatureExtractor
from vditrack.inference.engine_identity import Verification
from vditrack.inference.session import OpenGraph
from vditrack.input_checks.files import MalformedError, read_file
from vditrack.input_checks.npz import read_arrays
from vditrack.points.clip_tracking import track_clip
from vditrack.synthetic.layers.clips import SyntheticClip, render_clip

CLIPS = 4
"""Number of acceptance clips."""
FRAMES = 16
"""Frames of a clip; one window of the model if that is longer."""
POINTS = 64
"""Queries in the first frame of each clip."""
MAX_MOVE = 0.5
"""Largest accepted distance of the median point, in pixels."""
_MAX_SIZE = 64 << 20
"""Largest accepted size of ``gate.npz`` and of an array in it, in bytes; 100 kB are usual."""
_SAME_QUERY = 0.01
"""Pixels by which another machine's rounding may move a query."""


@dataclass(frozen=True)
class AcceptanceTracks:
    """Tracks of the points of all acceptance clips, one clip after the other."""

    points: NDArray[np.float32]
    """[N, T, 2] (x, y) in pixels of the clips."""
    visible: NDArray[np.bool_]
    """[N, T]"""

    @property
    def compared(self) -> NDArray[np.bool_]:
        """[N, T] what is compared: visible points, without those of the query frame."""
        compared = self.visible.copy()
        compared[:, 0] = False
        return compared


def match_only(settings: Matching) -> Matching:
    """Return the settings without optical flow and patches, so that only matching is compared.

    Flow and patches find most points of these clips again from matches that are several pixels off,
    which would hide a wrong engine.
    """
    return msgspec.structs.replace(settings, flow_tracking=None)


def acceptance_frames(size: Input) -> int:
    """Return the number of frames of each acceptance clip for a model of this input."""
    return max(size.frames, FRAMES)


def make_acceptance_clips(size: Input, count: int = CLIPS) -> list[SyntheticClip]:
    """Render the acceptance clips, as large as the model's input."""
    frames = acceptance_frames(size)
    return [
        render_clip(seed, size.height, size.width, frames, points=POINTS) for seed in range(count)
    ]


def track_acceptance_clips(
    bundle: Bundle, open_graph: OpenGraph, clips: Sequence[SyntheticClip]
) -> AcceptanceTracks:
    """Track the points of acceptance clips with a bundle's graphs, by matching alone.

    Args:
        bundle: the graphs' bundle.
        open_graph: loads each of the graphs.
        clips: as large as the model's input.

    """
    extractor, settings = FeatureExtractor(bundle, open_graph), match_only(bundle.manifest.matching)
    bridging = bundle.manifest.streaming.live
    tracks = [
        track_clip(extractor, clip.frames, _queries(clip), settings, bridging) for clip in clips
    ]
    return AcceptanceTracks(
        np.concatenate([each.points for each in tracks]),
        np.concatenate([each.visible for each in tracks]),
    )


def _queries(clip: SyntheticClip) -> NDArray[np.float32]:
    return np.insert(clip.points[:, 0], 0, 0, axis=1).astype(np.float32)


def median_move(before: AcceptanceTracks, after: AcceptanceTracks, size: Input) -> float:
    """Return the median distance between two sets of tracks, in pixels.

    It is taken over all frames in which a point was visible before. A point that is no longer
    visible counts as moved by the frame's diagonal; otherwise an engine would do better the fewer
    points it finds.
    """
    diagonal = math.hypot(size.height, size.width)
    moves = np.linalg.norm(after.points - before.points, axis=2)
    # Written so that NaN counts as lost.
    moves = np.where(after.visible & (moves <= diagonal), moves, diagonal)[before.compared]
    return float(np.median(moves)) if moves.size else diagonal


def save_acceptance_tracks(path: Path, tracks: AcceptanceTracks) -> None:
    """Write tracks of the acceptance clips as a bundle's ``gate.npz``."""
    np.savez_compressed(path, points=tracks.points, visible=tracks.visible)


def load_acceptance_tracks(bundle: Bundle) -> AcceptanceTracks:
    """Read a bundle's ``gate.npz``.

    Raises:
        BundleError: There is none, or it does not hold tracks of acceptance clips of its input.

    """
    path = bundle.root / ACCEPTANCE
    try:
        content = read_file(path, _MAX_SIZE, follow_links=False)
        found = AcceptanceTracks(**read_arrays(content, ("points", "visible"), _MAX_SIZE))
    except (OSError, MalformedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _refused(path, f"it does not hold points and visible ({reason})") from error
    # The file may have been replaced since the bundle was loaded.
    listed = bundle.manifest.files.get(ACCEPTANCE)
    if listed is not None and listed.sha256 != hashlib.sha256(content).hexdigest():
        raise _refused(path, "it was altered after the bundle was loaded")
    if complaint := _describe_fault(found, acceptance_frames(bundle.manifest.input)):
        raise _refused(path, complaint)
    return found


def _describe_fault(found: AcceptanceTracks, frames: int) -> str | None:
    points, visible = found.points, found.visible
    clips = [count * POINTS for count in range(1, CLIPS + 1)]
    if points.dtype != np.float32 or points.ndim != 3 or points.shape[2] != 2:
        return f"points are {points.dtype} {list(points.shape)}, not float32 [N, T, 2]"
    if visible.dtype != np.bool_ or visible.shape != points.shape[:2]:
        return f"visible is {visible.dtype} {list(visible.shape)}, not bool [N, T] as of points"
    if len(points) not in clips or points.shape[1] != frames:
        return (
            f"it holds {len(points)} points over {points.shape[1]} frames, not {POINTS} of each of "
            f"at most {CLIPS} clips of {frames} frames"
        )
    if not np.isfinite(points).all():
        return "points are not all finite"
    return None if found.compared.any() else "no point is visible"


def _refused(path: Path, complaint: str) -> BundleError:
    return BundleError(f"{path}: {complaint}. Export the bundle again.")


def verify_tracks(bundle: Bundle, open_graph: OpenGraph, where: str) -> Verification:
    """Track the acceptance clips, and compare with the tracks that were recorded at export.

    Args:
        bundle: with recorded tracks.
        open_graph: loads each of the graphs to be compared.
        where: name of the GPU that runs them.

    Raises:
        BundleError: The bundle has no recorded tracks, or they are of other clips.

    """
    size, recorded = bundle.manifest.input, load_acceptance_tracks(bundle)
    clips = make_acceptance_clips(size, len(recorded.points) // POINTS)
    # An engine is not to blame for clips that another version of this program rendered.
    queries = np.concatenate([clip.points[:, 0] for clip in clips])
    if np.abs(queries - recorded.points[:, 0]).max() > _SAME_QUERY:
        raise _refused(
            bundle.root / ACCEPTANCE, "it is of other clips than this vditrack and NumPy make"
        )
    return Verification(
        where=where,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        median_move=median_move(recorded, track_acceptance_clips(bundle, open_graph, clips), size),
        limit=MAX_MOVE,
    )
