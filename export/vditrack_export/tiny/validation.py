"""Validation of a student: matches and visibility of points, on scenes it is not trained on.

Descriptors are matched as the runtime matches them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import match
from vditrack_export.tiny.clip_store import ClipStore, StoredClip
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.student import SIGMA, Student, to_images

CLIPS = 16
"""Clips of validation."""
DENOISED_CLIPS = 2
DENOISING_SIGMAS = (0.1, 0.5, 0.9)
SHARES_WITHIN = (4, 8, 16)
"""Distances in pixels of the student's input at which a point counts as found."""
DISTANCES = ("near", "far")
_MATCHING = Matching(
    temperature=0.05,
    argmax_radius=8,
    search_radius=1,
    visibility_threshold=1,
    similarity_threshold=-1,
    recovery_threshold=-1,
    template_update=0,
    update_after_loss=True,
    horizon=1,
)


@dataclass(frozen=True)
class Check:
    """A clip of four frames: the motion is known, and what the teacher makes of it."""

    clip: StoredClip

    @property
    def teacher(self) -> list[FeatureMap]:
        """The teacher's maps."""
        return _make_maps(self.clip.teacher.astype(np.float32))


Maps = Callable[[Check], list[FeatureMap]]


def read_checks(store: ClipStore) -> list[Check]:
    """Return the clips of a store."""
    return [Check(store.read(number)) for number in range(len(store))]


@torch.no_grad()
def validate(student: Student, checks: Sequence[Check]) -> dict[str, float]:
    """Return the shares of `measure_shares`, denoising losses by level, and what is learnt."""
    student.eval()
    shares = measure_shares(checks, lambda check: describe_check(student, check))
    losses = {
        f"denoising_{sigma}": _measure_denoising(student, checks[:DENOISED_CLIPS], sigma)
        for sigma in DENOISING_SIGMAS
    }
    learnt = {
        "no_match": student.no_match.item(),
        "temperature": student.log_temperature.exp().item(),
    }
    return {**shares, **losses, **learnt}


def measure_shares(checks: Sequence[Check], maps_of: Maps) -> dict[str, float]:
    """Return the shares of points matched within some model pixels, and areas under the curve.

    They are named ``near_4px``, ``near_auc`` and so on. Points of a clip's first frame are searched
    in all of its second frame ("near"), and of its third and fourth frame, which belong to another
    window ("far"). The area is the probability that a visible point has a higher similarity than a
    hidden one.

    Args:
        checks: the clips.
        maps_of: returns the feature maps of a clip's frames.

    """
    found: dict[str, list[_Matches]] = {distance: [] for distance in DISTANCES}
    for check in checks:
        maps = maps_of(check)
        for target, distance in ((1, "near"), (2, "far"), (3, "far")):
            found[distance].append(_match_points(check.clip, maps, target))
    return {
        name: value
        for distance, parts in found.items()
        for name, value in _summarise_matches(distance, parts).items()
    }


def auc(seen: NDArray[np.floating], hidden: NDArray[np.floating]) -> float:
    """Return the probability that one of ``seen`` [N] exceeds one of ``hidden`` [M].

    Ties count half; it is one half if there is nothing to compare.
    """
    if not seen.size or not hidden.size:
        return 0.5
    above = seen[:, None] > hidden
    equal = seen[:, None] == hidden
    return float((above + 0.5 * equal).mean())


class _Matches(NamedTuple):
    errors: NDArray[np.float32]
    """The errors of points that are visible in both frames, in model pixels."""
    seen: NDArray[np.float32]
    """The similarities of these points."""
    hidden: NDArray[np.float32]
    """The similarities of points that are hidden in the second frame."""


def _summarise_matches(distance: str, parts: Sequence[_Matches]) -> dict[str, float]:
    errors, seen, hidden = (np.concatenate(each) for each in zip(*parts, strict=True))
    shares = {
        f"{distance}_{pixels}px": float((errors < pixels).mean()) if errors.size else 0.0
        for pixels in SHARES_WITHIN
    }
    return shares | {f"{distance}_auc": auc(seen, hidden)}


def describe_check(student: Student, check: Check) -> list[FeatureMap]:
    """Return a student's maps of the frames of a clip, with the noise of an exported graph."""
    device = student.no_match.device
    maps = []
    for frame in check.clip.frames:
        _, latents = student.encode(to_images(frame[None], device))
        sigma = torch.full((1,), SIGMA, device=device)
        described = student.describe(latents, sigma, torch.Generator().manual_seed(0))
        maps.append(described[0].float().cpu().numpy())
    return _make_maps(np.stack(maps))


def _make_maps(descriptors: NDArray[np.float32]) -> list[FeatureMap]:
    grid = Grid(descriptors.shape[1], descriptors.shape[2], STRIDE)
    return [FeatureMap(grid, frame) for frame in descriptors]


def _match_points(clip: StoredClip, maps: list[FeatureMap], target: int) -> _Matches:
    sought = clip.visible[:, 0]
    places, seen = clip.points[sought], clip.visible[sought, target]
    anywhere = np.zeros(len(places), np.bool_)
    found = match(
        maps[0].sample(places[:, 0], _MATCHING.template_falloff),
        maps[target],
        places[:, 0],
        anywhere,
        _MATCHING,
    )
    errors = np.linalg.norm(found.points - places[:, target], axis=1)[seen]
    return _Matches(errors, found.similarity[seen], found.similarity[~seen])


def _measure_denoising(student: Student, checks: Sequence[Check], sigma: float) -> float:
    generator = torch.Generator().manual_seed(1)
    losses = []
    for check in checks:
        _, latents = student.encode(to_images(check.clip.frames, student.no_match.device))
        level = torch.full((len(latents),), sigma, device=latents.device)
        losses.append(student.denoising(latents, level, generator))
    return float(torch.cat(losses).mean())
