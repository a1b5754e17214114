"""What a distilled bundle says of its origin: ``distillation.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from vditrack.bundle.manifest import Sha256
from vditrack.errors import BundleError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

DISTILLATION = "distillation.json"

Number = Annotated[int, Meta(ge=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recording that a student was taught on."""

    name: str
    """File or folder, with the topic or the camera and the episode if there is one."""
    frames: Number
    sha256: Sha256
    """Digest of the times and the pictures of its frames."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How student and teacher do on rendered clips that the student was not taught on."""

    clips: Number
    """Clips that were tracked."""
    matches_teacher: Percent
    """Points of another moment that the teacher's descriptors alone match within a cell."""
    matches: Percent
    """The same of the student."""
    found_again_teacher: Percent | None
    """Points that reappeared and were found again, by the teacher's tracks; None if the teacher is
    not a bundle, or no point reappeared."""
    found_again: Percent | None
    """The same of the student."""
    average_jaccard_teacher: Percent | None
    """TAP-Vid's average Jaccard of the teacher's tracks; None if the teacher is not a bundle."""
    average_jaccard: Percent
    """The same of the student."""
    accepted: bool
    """Whether the student keeps too little of the teacher, and the user accepted it."""


class Distillation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who taught a student, on what, and what it kept."""

    teacher: str
    """Name of the teacher."""
    teacher_sha256: Sha256
    """Digest of the manifest of the teacher's bundle, or of the file of its weights."""
    footage: tuple[Recording, ...]
    footage_clips: Number
    """Clips of four frames of the footage that the teacher described."""
    rendered_clips: Number
    """Clips of known motion that were rendered of frames of the footage."""
    steps: Number
    """Steps of training."""
    seed: int
    agreement: Agreement


def read_distillation(root: Path) -> Distillation | None:
    """Return what the bundle in a folder says of its teacher; None if it was not distilled.

    Raises:
        BundleError: The file is malformed.

    """
    path = root / DISTILLATION
    if not path.exists():
        return None
    try:
        return decode_json(read_file(path, MAX_JSON_SIZE, follow_links=False), Distillation)
    except (OSError, MalformedError) as error:
        raise BundleError(f"{path} cannot be read: {error}. Distil the bundle again.") from error


def write_distillation(root: Path, distillation: Distillation) -> None:
    """Write the file into a bundle's folder, before the bundle is sealed."""
    text = msgspec.json.format(msgspec.json.encode(distillation), indent=2)
    (root / DISTILLATION).write_bytes(text + b"\n")
