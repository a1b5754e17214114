"""Compares a student with its teacher on rendered clips that it was not taught on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from vditrack.bundle.distillation import Agreement
from vditrack.bundle.folder import Bundle
from vditrack.coordinates import Grid
from vditrack.errors import VditrackError
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.metrics.results import Result
from vditrack.evaluation.protocols import TapVid
from vditrack.evaluation.run import TrackerMethod, evaluate
from vditrack.features.feature_map import FeatureMap
from vditrack.tracker import Tracker
from vditrack_export.distillation.teachers import BundleTeacher
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.rendering import Report
from vditrack_export.tiny.teacher import Teacher, fit_grid
from vditrack_export.tiny.validation import Check, Maps, measure_shares

DATA, CLIPS = "synthetic:3", 6
"""Rendered clips that are tracked; their surfaces are procedural, so none is of the footage."""
MATCHES = "far_8px"
"""The share of matches that is compared: of another moment, within a cell of 8 pixels."""
MIN_KEPT = 0.9
"""The least share of the teacher's matches, and of the points that it finds again, that is kept."""
MAX_LOSS = 3.0
"""The largest loss of average Jaccard, in percent."""
_FOUND_AGAIN = "found again"


def compare(
    student: Bundle,
    teacher: Teacher,
    checks: Sequence[Check],
    report: Report,
    *,
    clips: int = CLIPS,
) -> Agreement:
    """Compare a student's bundle with its teacher, by descriptors alone and by tracks.

    Args:
        student: the exported student.
        teacher: the teacher; one that is not a bundle tracks nothing.
        checks: rendered clips with the teacher's descriptors.
        report: called with the tracks that were made, and those in all.
        clips: the number of clips that are tracked.

    """
    model = BundleTeacher(student)
    matches = {
        "matches_teacher": _measure(checks, lambda check: check.teacher),
        "matches": _measure(checks, lambda check: _describe(model, check)),
    }
    bundles = {"student": student}
    if isinstance(teacher, BundleTeacher):
        bundles["teacher"] = teacher.bundle
    results = _track(bundles, clips, report)
    taught = results.get("teacher")
    return Agreement(
        clips=clips,
        **matches,
        found_again_teacher=None if taught is None else _found_again(taught),
        found_again=_found_again(results["student"]),
        average_jaccard_teacher=None if taught is None else _average_jaccard(taught),
        average_jaccard=_average_jaccard(results["student"]),
        accepted=False,
    )


def list_complaints(found: Agreement) -> list[str]:
    """Return what a student lacks of its teacher, each as a clause; an empty list if nothing."""
    complaints = []
    for what, mine, its in (
        ("matches", found.matches, found.matches_teacher),
        ("finds again", found.found_again, found.found_again_teacher),
    ):
        # Written so that NaN fails.
        if its is not None and mine is not None and not mine >= MIN_KEPT * its:
            complaints.append(
                f"it {what} {mine:.1f}% of the points and the teacher {its:.1f}% "
                f"({100 * mine / its:.0f}% kept, at least {100 * MIN_KEPT:.0f}%)"
            )
    teacher, student = found.average_jaccard_teacher, found.average_jaccard
    if teacher is not None and not teacher - student <= MAX_LOSS:
        complaints.append(
            f"the average Jaccard falls from {teacher:.1f} to {student:.1f} (at most "
            f"{MAX_LOSS:g} less)"
        )
    return complaints


def require_kept(found: Agreement, remedy: str) -> None:
    """Check that a student keeps enough of its teacher.

    Args:
        found: the comparison.
        remedy: what to do, for the message.

    Raises:
        VditrackError: It does not.

    """
    if complaints := list_complaints(found):
        raise VditrackError(
            f"the student falls short of its teacher on rendered clips: {'; '.join(complaints)}. "
            f"{remedy}"
        )


def _measure(checks: Sequence[Check], maps_of: Maps) -> float:
    return 100 * measure_shares(checks, maps_of)[MATCHES]


def _describe(model: BundleTeacher, check: Check) -> list[FeatureMap]:
    frames = np.array(check.clip.frames)
    rows, columns = (side // STRIDE for side in frames.shape[1:3])
    described = fit_grid(model.describe_each(frames), rows, columns).astype(np.float32)
    grid = Grid(rows, columns, STRIDE)
    return [FeatureMap(grid, frame) for frame in described]


def _track(bundles: dict[str, Bundle], clips: int, report: Report) -> dict[str, list[Result]]:
    protocol, total = TapVid(), clips * len(bundles)
    begun = 0

    def show(_clip: str, _method: str) -> None:
        nonlocal begun
        report(begun, total)
        begun += 1

    trackers = {name: TrackerMethod(Tracker.load(bundle.root)) for name, bundle in bundles.items()}
    dataset = open_dataset(DATA, "tapvid", protocol.side)
    results = evaluate(islice(dataset.clips, clips), trackers, protocol, show)
    report(total, total)
    return {name: [one for one in results if one.method == name] for name in bundles}


def _found_again(results: Sequence[Result]) -> float | None:
    shares = [one.events[_FOUND_AGAIN] for one in results if _FOUND_AGAIN in one.events]
    total = sum(share.total for share in shares)
    return 100 * sum(share.hits for share in shares) / total if total else None


def _average_jaccard(results: Sequence[Result]) -> float:
    return float(np.nanmean([one.metrics["AJ"] for one in results]))
