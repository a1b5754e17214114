"""The gate: tracks of rendered clips, which every way to run a bundle has to reproduce.

The clips come out the same wherever they are made. So a bundle carries what its own graphs found in
them at export, in ``gate.npz``, and a machine that runs its engines compares theirs with that: what
it may be unable to run is then not needed there.
"""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.configuration import Matching
from vditrack.bundle.folder import GATE, Bundle
from vditrack.bundle.manifest import Input
from vditrack.errors import BundleError
from vditrack.features.extractor import FeatureExtractor
from vditrack.inference.engine_identity import Verification
from vditrack.inference.session import OpenGraph
from vditrack.points.clip_tracking import track_clip
from vditrack.synthetic.layers.clips import SyntheticClip, make_clip

CLIPS = 4
FRAMES = 16
"""Of a clip, or one window of the model where that is longer."""
POINTS = 64
"""Picked in the first frame of each clip."""
MAX_MOVE = 0.5
"""Pixels, of the median point."""
_SAME_QUERY = 0.01
"""Pixels; what another machine's sines may do to where a point was picked."""


@dataclass(frozen=True)
class Followed:
    """Where the points of the gate's clips were found, one clip after the other."""

    points: NDArray[np.float32]
    """[N, T, 2] (x, y) in pixels of the clips."""
    visible: NDArray[np.bool_]
    """[N, T]"""

    @property
    def seen(self) -> NDArray[np.bool_]:
        """[N, T]: what is compared; in the first frame points are where they were asked for."""
        seen = self.visible.copy()
        seen[:, 0] = False
        return seen


def match_only(settings: Matching) -> Matching:
    """Return the settings without optical flow and patches, so that only matching is compared.

    Flow and patches find most points of these clips again from matches that are several pixels off,
    which would hide a wrong engine.
    """
    return msgspec.structs.replace(settings, flow_tracking=None)


def gate_frames(size: Input) -> int:
    """Frames of each of the gate's clips for a model of this input."""
    return max(size.frames, FRAMES)


def gate_clips(size: Input, count: int = CLIPS) -> list[SyntheticClip]:
    """Make the gate's clips, as large as the model's input."""
    frames = gate_frames(size)
    return [
        make_clip(seed, size.height, size.width, frames, points=POINTS) for seed in range(count)
    ]


def follow(bundle: Bundle, open_graph: OpenGraph, clips: Sequence[SyntheticClip]) -> Followed:
    """Track the points of acceptance clips with a bundle's graphs, by matching alone.

    Args:
        bundle: the graphs' bundle.
        open_graph: loads each of the graphs.
        clips: as large as the model's input.

    """
    extractor, settings = FeatureExtractor(bundle, open_graph), match_only(bundle.manifest.matching)
    tracks = [track_clip(extractor, clip.frames, _queries(clip), settings) for clip in clips]
    return Followed(
        np.concatenate([each.points for each in tracks]),
        np.concatenate([each.visible for each in tracks]),
    )


def _queries(clip: SyntheticClip) -> NDArray[np.float32]:
    return np.insert(clip.points[:, 0], 0, 0, axis=1).astype(np.float32)


def median_move(before: Followed, after: Followed, size: Input) -> float:
    """Return by how many pixels the median point moved, over the frames in which it was seen.

    A point that is no longer seen has moved by the picture's diagonal: else the fewer an engine
    finds, the better it would do.
    """
    diagonal = math.hypot(size.height, size.width)
    moves = np.linalg.norm(after.points - before.points, axis=2)
    # Written so that NaN counts as lost.
    moves = np.where(after.visible & (moves <= diagonal), moves, diagonal)[before.seen]
    return float(np.median(moves)) if moves.size else diagonal


def save_gate(path: Path, followed: Followed) -> None:
    """Write tracks of the gate's clips as a bundle's ``gate.npz``."""
    np.savez_compressed(path, points=followed.points, visible=followed.visible)


def load_gate(bundle: Bundle) -> Followed:
    """Read a bundle's ``gate.npz``.

    Raises:
        BundleError: there is none, or it does not hold tracks of the gate's clips for its input.

    """
    path = bundle.root / GATE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Followed(arrays["points"], arrays["visible"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _refused(path, f"it does not hold points and visible ({error})") from error
    if complaint := _complaint(found, gate_frames(bundle.manifest.input)):
        raise _refused(path, complaint)
    return found


def _complaint(found: Followed, frames: int) -> str | None:
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
    return None if found.seen.any() else "no point is seen"


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
    size, recorded = bundle.manifest.input, load_gate(bundle)
    clips = gate_clips(size, len(recorded.points) // POINTS)
    # An engine is not to blame for clips that another version of this program rendered.
    queries = np.concatenate([clip.points[:, 0] for clip in clips])
    if np.abs(queries - recorded.points[:, 0]).max() > _SAME_QUERY:
        raise _refused(bundle.root / GATE, "it is of other clips than this vditrack and NumPy make")
    return Verification(
        where=where,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        median_move=median_move(recorded, follow(bundle, open_graph, clips), size),
        limit=MAX_MOVE,
    )
