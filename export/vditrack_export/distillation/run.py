"""The steps of a distillation; each continues where an earlier run was interrupted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from vditrack.atomic_files import (
    check_disk_space,
    check_folder_destination,
    staged_file,
    staged_folder,
)
from vditrack.atomic_files.locks import locked_folder
from vditrack.bundle.distillation import Agreement, Distillation, write_distillation
from vditrack.bundle.folder import CONTENTS, Bundle, seal_bundle
from vditrack_export.card import Card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.distillation.footage import (
    Footage,
    PlannedClip,
    count_clips,
    plan_clips,
    split_pictures,
    store_footage,
    survey_footage,
)
from vditrack_export.distillation.gate import compare, list_complaints, require_kept
from vditrack_export.distillation.sizes import coarsest_cell, make_card
from vditrack_export.pipeline.export import export_bundle
from vditrack_export.tiny.batches import Clips
from vditrack_export.tiny.clip_store import ClipStore, clip_bytes
from vditrack_export.tiny.identity import keep_identity
from vditrack_export.tiny.model import STRIDE, Shape
from vditrack_export.tiny.rendering import Report, Scenes, render_into
from vditrack_export.tiny.softness import fit_softness
from vditrack_export.tiny.teacher import Teacher
from vditrack_export.tiny.training import Plan, train_student
from vditrack_export.tiny.validation import CLIPS, Check, read_checks

FITTED_CLIPS = 16
"""Clips by which the teacher's temperature is fitted."""
RENDERED_FOR_EACH = 1
"""Rendered clips for each clip of the footage."""
CARD = "card.toml"
"""The card of the student, in the folder of its run."""
_NAMED = 4
"""Recordings that the card names."""
# Seeds of clips that no training run reaches.
_FITTED, _CHECKED = 1_000_000_000, 2_000_000_000

Progress = Callable[[str], Report]
"""Opens a progress bar with a title."""
ReportLine = Callable[[str], None]
"""Called with lines for the user."""


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    videos: tuple[str, ...]
    """As `vditrack.annotation.sources.list_sources` takes them."""
    output: Path
    """Folder of the student's bundle."""
    folder: Path
    """Folder of the run."""
    card: Card
    """The card of the bundled model, with the size of the student's frames."""
    shape: Shape
    """Sizes of the student."""
    steps: int
    clips: int | None
    """Clips of the footage; None for a number by its length."""
    seed: int
    accept: bool
    """Whether a student that falls short of its teacher is written."""


def distil(request: Request, teacher: Teacher, progress: Progress, report: ReportLine) -> Bundle:
    """Teach a student on footage, export it, and compare it with its teacher.

    Args:
        request: what the user asks for.
        teacher: the teacher.
        progress: see `Progress`.
        report: called with lines on how student and teacher compare, also if it is refused.

    Raises:
        InputError: The footage cannot be read, the run's folder has another run, or a disk is full.
        VditrackError: The student falls short of its teacher, and this is not accepted. The run is
            kept then, and no bundle is written.

    """
    check_folder_destination(request.output, CONTENTS)
    check_folder_destination(request.folder)
    request.folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(request.folder, request.folder):
        return _distil(request, teacher, progress, report)


def _distil(request: Request, teacher: Teacher, progress: Progress, report: ReportLine) -> Bundle:
    footage = survey_footage(request.videos, progress("footage"))
    count = request.clips or count_clips(footage)
    planned = plan_clips(footage, count, teacher.temporal_stride, request.seed)
    keep_identity(request.folder, _identify(request, teacher, footage, planned))
    clips, fitted, checks = _prepare(request, teacher, footage, planned, progress)
    plan = Plan(
        request.shape, teacher.channels, fit_softness(fitted), request.steps, seed=request.seed
    )
    weights = train_student(plan, clips, checks, request.folder, progress("steps"))
    student = _export(request, weights, teacher, footage)
    agreement = compare(student, teacher, checks, progress("compared"))
    for line in describe_agreement(agreement):
        report(line)
    if not request.accept:
        require_kept(
            agreement,
            f"No bundle was written; the run is kept in {request.folder}. Give more --steps, more "
            "footage or a larger --budget, or --accept.",
        )
    origin = Distillation(
        teacher=teacher.name,
        teacher_sha256=teacher.sha256,
        footage=tuple(each.recording for each in footage),
        footage_clips=len(planned),
        rendered_clips=len(clips.rendered),
        steps=request.steps,
        seed=request.seed,
        agreement=msgspec.structs.replace(agreement, accepted=bool(list_complaints(agreement))),
    )
    return _write(student, origin, request.output)


def _identify(
    request: Request,
    teacher: Teacher,
    footage: Sequence[Footage],
    planned: Sequence[PlannedClip],
) -> dict[str, str]:
    """Return what the result depends on; more steps may be added to a run."""
    digests = "".join(each.recording.sha256 for each in footage)
    size = request.card.input
    return {
        "teacher": teacher.sha256,
        "--videos": hashlib.sha256(digests.encode()).hexdigest(),
        "--clips": str(len(planned)),
        "--size": f"{size.width}x{size.height}",
        "--budget": str(request.shape),
        "--seed": str(request.seed),
    }


def _prepare(
    request: Request,
    teacher: Teacher,
    footage: Sequence[Footage],
    planned: Sequence[PlannedClip],
    progress: Progress,
) -> tuple[Clips, ClipStore, list[Check]]:
    """Return the clips for training, for the teacher's temperature and for validation."""
    size = (request.card.input.height, request.card.input.width)
    crop = _choose_crop(size, request.shape)
    cache, rendered_count = request.folder / "clips", RENDERED_FOR_EACH * len(planned)
    taught = len(planned) + FITTED_CLIPS + CLIPS
    wanted = taught * clip_bytes(*size, STRIDE, teacher.channels)
    wanted += rendered_count * clip_bytes(*crop, STRIDE, 0)
    stores = {
        "footage": ClipStore(cache / "footage", len(planned)),
        "rendered": ClipStore(cache / "rendered", rendered_count),
        "fitted": ClipStore(cache / "fitted", FITTED_CLIPS),
        "checked": ClipStore(cache / "checked", CLIPS),
    }
    if any(store.missing() for store in stores.values()):
        check_disk_space(
            request.folder,
            wanted,
            "the cache of clips and the teacher's descriptors",
            "Make room, or give another --run or fewer --clips.",
        )
    store_footage(stores["footage"], footage, planned, teacher, size, progress("teacher"))
    training, held_out = split_pictures(stores["footage"])
    for name, pictures, sides, seed, describes in (
        ("rendered", training, crop, 0, None),
        ("fitted", training, size, _FITTED, teacher),
        ("checked", held_out, size, _CHECKED, teacher),
    ):
        scenes = Scenes(pictures, sides, request.seed + seed)
        render_into(stores[name], scenes, describes, progress(name))
    for store in stores.values():
        store.verify()
    clips = Clips(stores["rendered"], stores["footage"], crop)
    return clips, stores["fitted"], read_checks(stores["checked"])


def _choose_crop(size: tuple[int, int], shape: Shape) -> tuple[int, int]:
    """Return about half of each side, in whole cells of the encoder's coarsest level."""
    cell = coarsest_cell(shape)
    height, width = (max(cell, side // 2 // cell * cell) for side in size)
    return height, width


def _export(
    request: Request, weights: Path, teacher: Teacher, footage: Sequence[Footage]
) -> Bundle:
    """Export a student into the folder of its run, and write its card there."""
    base = make_card(request.card, request.shape)
    taught_on = ", ".join(
        f"{each.recording.name} ({each.recording.sha256[:16]})" for each in footage[:_NAMED]
    )
    more = len(footage) - _NAMED
    card = msgspec.structs.replace(
        base,
        name=f"{base.name}, taught by {teacher.name}",
        checkpoint=f"student of {teacher.name} ({teacher.sha256[:16]}), by vditrack distill",
        licence="as the teacher and the footage allow",
        notes=f"Distilled from {teacher.name} ({teacher.sha256[:16]}) on {taught_on}"
        f"{f' and {more} more recordings' * (more > 0)}.",
    )
    with staged_file(request.folder / CARD) as path:
        path.write_text(tomlkit.dumps(_drop_none(msgspec.to_builtins(card))))
    return export_bundle(
        card,
        Weights(weights),
        request.folder / "bundle",
        lambda _stage: None,
        masks=card.masks is not None,
    )


def _drop_none(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields without those that are None, which TOML does not have."""
    return {
        name: _drop_none(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


def _write(student: Bundle, origin: Distillation, output: Path) -> Bundle:
    size = sum(record.size for record in student.manifest.files.values())
    check_disk_space(output, size, "the bundle", "Make room, or choose another -o.")
    with staged_folder(output, replaceable=CONTENTS) as folder:
        for name in student.manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(student.root / name, folder / name)
        write_distillation(folder, origin)
        sealed = seal_bundle(folder, student.manifest)
    return sealed.moved_to(output)


def describe_agreement(found: Agreement) -> list[str]:
    """Return lines for the user on how student and teacher compare."""
    lines = [
        f"matches of another moment within a cell: {found.matches:.1f}%, the teacher's "
        f"{found.matches_teacher:.1f}%",
    ]
    if found.found_again is not None and found.found_again_teacher is not None:
        lines.append(
            f"found again: {found.found_again:.1f}%, the teacher {found.found_again_teacher:.1f}%"
        )
    teacher = found.average_jaccard_teacher
    lines.append(
        f"average Jaccard: {found.average_jaccard:.1f}"
        + ("" if teacher is None else f", the teacher {teacher:.1f}")
    )
    return lines
