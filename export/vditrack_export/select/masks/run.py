"""Clip by clip through a model and through label propagation: features once, then every trial."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Doubles, Mask
from vditrack.bundle.configuration import Propagation
from vditrack.errors import InputError
from vditrack.evaluation.metrics.masks import mask_scores
from vditrack.features.feature_map import FeatureMap
from vditrack.features.fusion import fuse
from vditrack.features.windows import clip_features
from vditrack.input_checks import check_mask
from vditrack.masks.objects import MaskedObjects
from vditrack_export.select.masks.feature_cache import Kept
from vditrack_export.select.masks.features import PartModel
from vditrack_export.select.masks.scores import MaskClips, MaskScores
from vditrack_export.select.masks.search_space import MaskSpace, Setting, Trial

Done = Callable[[], None]
Report = Callable[[str, int | None], Done]
"""Announces work and how many steps it has, if that is known; what it gives is called at each."""


@dataclass(frozen=True)
class MaskedClip:
    """The beginning of a clip, and the true masks of its objects."""

    name: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    masks: Mask
    """[T, H, W]"""


def begun(clip: AnnotatedClip, frames: int) -> MaskedClip:
    """Return so many frames of a clip, from its beginning.

    Raises:
        InputError: it has no masks, its first one marks no object, or it has fewer than three
            frames, of which the metric leaves out the first and the last.

    """
    if clip.masks is None:
        raise InputError(f"clip {clip.name} has no masks, from which objects are propagated.")
    check_mask(clip.masks[0], clip.frames.shape[1:3], f"the first mask of clip {clip.name}")
    if min(frames, len(clip.frames)) < 3:
        raise InputError(
            f"of clip {clip.name} {min(frames, len(clip.frames))} frames are read; J&F needs 3, "
            "since it leaves out the first and the last."
        )
    # Copies, for the rest of a long clip is not to stay in memory.
    return MaskedClip(clip.name, clip.frames[:frames].copy(), clip.masks[:frames].copy())


def keep_features(
    model: PartModel,
    settings: Sequence[Setting],
    clips: Sequence[MaskedClip],
    kept: Kept,
    report: Report,
) -> None:
    """Write the features of one part in all its settings.

    Args:
        model: of the part.
        settings: those of one noise level next to each other, with the same blocks at each.
        clips: that are described.
        kept: where to.
        report: of progress.

    """
    levels = dict.fromkeys(setting.denoising for setting in settings)
    done = report(settings[0].part, len(levels) * len(clips))
    for level in levels:
        of_level = [setting for setting in settings if setting.denoising == level]
        extractor = model.extractor([setting.block for setting in of_level], level)
        for number, clip in enumerate(clips):
            kept.keep(number, of_level, clip_features(extractor, clip.frames))
            done()


def score_masks(
    settings: Propagation,
    space: MaskSpace,
    clips: Sequence[MaskedClip],
    about: MaskClips,
    kept: Kept,
    report: Report,
    own: Trial | None,
) -> MaskScores:
    """Score each part alone in all its settings, then both fused where that promises most.

    Fused are the best motion of each noise level and the best appearance, with every weight, and
    what the card has.

    Args:
        settings: of propagation; the weight is that of each trial.
        space: what is tried.
        clips: with true masks.
        about: the same clips.
        kept: features of all settings.
        report: of progress.
        own: what the card has, if that is in the space.

    """
    unmoved = (np.broadcast_to(clip.masks[:1], clip.masks.shape) for clip in clips)
    still = np.array(
        [_score(clip.masks, masks) for clip, masks in zip(clips, unmoved, strict=True)]
    )

    def tried(name: str, trials: Iterable[Trial]) -> Mapping[Trial, Doubles]:
        different = list(dict.fromkeys(trials))
        done = report(name, len(different) * len(clips))
        return {trial: _scores(trial, settings, clips, kept, done) for trial in different}

    alone = MaskScores(about, tried("alone", space.alone()), still)
    fused = tried("fused", _promising(alone, space, own))
    return MaskScores(about, {**alone.tried, **fused}, still)


def _promising(alone: MaskScores, space: MaskSpace, own: Trial | None) -> Iterator[Trial]:
    appearance = alone.best_alone("appearance").appearance
    for motion in alone.alone("motion").values():
        for weight in space.weights:
            yield Trial(motion.motion, appearance, weight)
    if own is not None and own not in alone.tried:
        yield own


def _scores(
    trial: Trial,
    settings: Propagation,
    clips: Sequence[MaskedClip],
    kept: Kept,
    done: Done,
) -> Doubles:
    """[clips] J&F of a trial."""
    weighted = msgspec.structs.replace(settings, motion_weight=trial.weight)
    found = []
    for number, clip in enumerate(clips):
        maps = _both(trial, kept, number)
        found.append(_score(clip.masks, _propagated(clip, maps, weighted)))
        done()
    return np.array(found)


def _both(trial: Trial, kept: Kept, clip: int) -> Iterator[tuple[FeatureMap, FeatureMap]]:
    """Maps of motion and of appearance; a part that is left out has no channels."""
    grid = kept.shapes["appearance"].grid
    nothing = FeatureMap(grid, np.zeros((grid.rows, grid.columns, 0), np.float32))
    motion, appearance = (
        repeat(nothing) if part is None else kept.maps(clip, part)
        for part in (trial.motion, trial.appearance)
    )
    return zip(motion, appearance, strict=False)


def _propagated(
    clip: MaskedClip, maps: Iterable[tuple[FeatureMap, FeatureMap]], settings: Propagation
) -> Mask:
    """[T, H, W] of objects that are marked on the first frame, as the tracker carries them."""
    carried, objects = np.zeros_like(clip.masks), MaskedObjects(settings)
    for number, (motion, appearance) in enumerate(maps):
        objects.advance(fuse(motion, appearance, settings.motion_weight), clip.masks.shape[1:])
        if number == 0:
            objects.add_masks(clip.masks[0])
        carried[number] = objects.mask
    return carried


def _score(truth: Mask, found: Mask) -> float:
    scores = mask_scores(truth, found)
    return (scores.region + scores.boundary) / 2
