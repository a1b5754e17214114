"""Scoring masks: features of every clip once, then label propagation for every trial."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np

from vditrack.arrays import Doubles, FrameClip, MaskClip
from vditrack.bundle.configuration import Propagation
from vditrack.errors import InputError
from vditrack.evaluation.metrics.masks import mask_scores
from vditrack.features.cell_colour import colour_map
from vditrack.features.feature_map import FeatureMap
from vditrack.features.fusion import fuse
from vditrack.features.windows import clip_features
from vditrack.input_checks.arrays import check_mask
from vditrack.masks.objects import MaskedObjects
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.select.masks.feature_cache import FeatureCache
from vditrack_export.select.masks.features import make_extractor
from vditrack_export.select.masks.scores import MaskClips, MaskScores
from vditrack_export.select.masks.search_space import MaskSpace, Setting, Trial

Advance = Callable[[], None]
StartProgress = Callable[[str, int | None], Advance]
"""Takes the name of a stage and its number of steps, if known; returns a function to call after
each step."""


@dataclass(frozen=True)
class MaskedClip:
    """The first frames of a clip and the true masks of its objects."""

    name: str
    frames: FrameClip
    """RGB, uint8 [T, H, W, 3]."""
    masks: MaskClip
    """Object ids, uint8 [T, H, W]; 0 is the background."""


def crop_clip(clip: AnnotatedClip, frames: int) -> MaskedClip:
    """Return the first frames of a clip.

    Raises:
        InputError: the clip has no masks, its first mask has no object, or fewer than three frames
            are left, of which the metric ignores the first and the last.

    """
    if clip.masks is None:
        raise InputError(f"clip {clip.name} has no masks. Give clips with masks of objects.")
    check_mask(clip.masks[0], clip.frames.shape[1:3], f"the first mask of clip {clip.name}")
    if min(frames, len(clip.frames)) < 3:
        raise InputError(
            f"of clip {clip.name} {min(frames, len(clip.frames))} frames are used. J&F ignores the "
            "first and the last, so it needs 3."
        )
    # Copies release the memory of the other frames.
    return MaskedClip(clip.name, np.array(clip.frames[:frames]), np.array(clip.masks[:frames]))


def store_features(
    model: Backbone,
    settings: Sequence[Setting],
    clips: Sequence[MaskedClip],
    cache: FeatureCache,
    start_progress: StartProgress,
) -> None:
    """Compute the features of one part in all its settings and store them.

    Args:
        model: the model of the part.
        settings: the settings of one part, those of one noise level next to each other, with the
            same blocks at each level.
        clips: the clips to encode.
        cache: the store.
        start_progress: see `StartProgress`.

    """
    levels = dict.fromkeys(setting.denoising for setting in settings)
    advance = start_progress(settings[0].part, len(levels) * len(clips))
    for level in levels:
        of_level = [setting for setting in settings if setting.denoising == level]
        extractor = make_extractor(model, [setting.block for setting in of_level], level)
        for number, clip in enumerate(clips):
            cache.write_maps(number, of_level, clip_features(extractor, clip.frames))
            advance()


def score_masks(
    settings: Propagation,
    space: MaskSpace,
    clips: Sequence[MaskedClip],
    names: MaskClips,
    cache: FeatureCache,
    start_progress: StartProgress,
    own: Trial | None,
) -> MaskScores:
    """Score each part alone in all its settings, then the most promising pairs of both.

    A pair is the best motion of each noise level with the best appearance, at every weight; the
    card's own pair is added.

    Args:
        settings: the settings of propagation; each trial has its own weight of motion.
        space: the search space.
        clips: the clips with true masks.
        names: the names of the same clips and of their data sets.
        cache: the features of all settings.
        start_progress: see `StartProgress`.
        own: the card's own choice, or None if it is not in the space.

    """
    unmoved = (np.broadcast_to(clip.masks[:1], clip.masks.shape) for clip in clips)
    still = np.array(
        [_mean_score(clip.masks, masks) for clip, masks in zip(clips, unmoved, strict=True)]
    )

    def score_trials(stage: str, trials: Iterable[Trial]) -> Mapping[Trial, Doubles]:
        different = list(dict.fromkeys(trials))
        advance = start_progress(stage, len(different) * len(clips))
        return {trial: _score_trial(trial, settings, clips, cache, advance) for trial in different}

    alone = MaskScores(names, score_trials("alone", space.trials_alone()), still)
    fused = score_trials("fused", _choose_pairs(alone, space, own))
    return MaskScores(names, {**alone.by_trial, **fused}, still)


def _choose_pairs(alone: MaskScores, space: MaskSpace, own: Trial | None) -> Iterator[Trial]:
    appearance = alone.best_alone("appearance").appearance
    for motion in alone.alone_by_noise("motion").values():
        for weight in space.weights:
            yield Trial(motion.motion, appearance, weight)
    if own is not None and own not in alone.by_trial:
        yield own


def _score_trial(
    trial: Trial,
    settings: Propagation,
    clips: Sequence[MaskedClip],
    cache: FeatureCache,
    advance: Advance,
) -> Doubles:
    """Return J&F of a trial on each clip, in percent, [clips]."""
    weighted = msgspec.structs.replace(settings, motion_weight=trial.weight)
    found = []
    for number, clip in enumerate(clips):
        maps = _read_both_parts(trial, cache, number)
        found.append(_mean_score(clip.masks, _propagate(clip, maps, weighted)))
        advance()
    return np.array(found)


def _read_both_parts(
    trial: Trial, cache: FeatureCache, clip: int
) -> Iterator[tuple[FeatureMap, FeatureMap]]:
    """Yield the maps of motion and appearance; a part that a trial lacks has no channels."""
    grid = cache.shapes["appearance"].grid
    nothing = FeatureMap(grid, np.zeros((grid.rows, grid.columns, 0), np.float32))
    motion, appearance = (
        repeat(nothing) if part is None else cache.read_maps(clip, part)
        for part in (trial.motion, trial.appearance)
    )
    return zip(motion, appearance, strict=False)


def _propagate(
    clip: MaskedClip, maps: Iterable[tuple[FeatureMap, FeatureMap]], settings: Propagation
) -> MaskClip:
    """Return the masks [T, H, W] that the tracker propagates from the first true mask."""
    propagated, objects = np.zeros_like(clip.masks), MaskedObjects(settings)
    for number, (motion, plain) in enumerate(maps):
        appearance = colour_map(plain, clip.frames[number], settings.colour)
        objects.advance(fuse(motion, appearance, settings.motion_weight), clip.masks.shape[1:])
        if number == 0:
            objects.add_masks(clip.masks[0])
        propagated[number] = objects.mask
    return propagated


def _mean_score(truth: MaskClip, found: MaskClip) -> float:
    """Return J&F in percent."""
    scores = mask_scores(truth, found)
    return (scores.region + scores.boundary) / 2
