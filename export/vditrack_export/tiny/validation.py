"""Validation of the model in training: matching of points and their visibility, on held-out scenes.

The keys are read as the runtime reads them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.arrays import Image
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import match
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.pictures import build_pyramid
from vditrack_export.tiny.quadruples import make_quadruple
from vditrack_export.tiny.recipe import Recipe, join_windows, to_images

CLIPS, DENOISED_CLIPS, POINTS = 12, 4, 64
HEIGHT, WIDTH = 192, 256
SIGMA = 0.05
DENOISING_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SHARES_WITHIN = (2, 4, 8)
# Seeds that no training run reaches.
_FIRST_CLIP = 1_000_000_000
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

Maps = Callable[[SyntheticClip], list[FeatureMap]]


def validation_clips(photos: Sequence[Image]) -> list[SyntheticClip]:
    """Return the clips for validation: four frames each, two near in time and two far."""
    pyramids = [build_pyramid(photo) for photo in photos]
    return [
        make_quadruple(np.random.default_rng(_FIRST_CLIP + k), HEIGHT, WIDTH, pyramids, POINTS)
        for k in range(CLIPS)
    ]


@torch.no_grad()
def validate(recipe: Recipe, clips: Sequence[SyntheticClip]) -> dict[str, float]:
    """Return the shares of `measure_shares`, denoising losses by level, and `Recipe.no_match`."""
    recipe.eval()
    shares = measure_shares(clips, lambda clip: _encode_clip(recipe, clip))
    windows = torch.cat([_encode_windows(recipe, clip) for clip in clips[:DENOISED_CLIPS]])
    losses = {f"denoising_{s}": _measure_denoising(recipe, windows, s) for s in DENOISING_SIGMAS}
    return {**shares, **losses, "no_match": recipe.no_match.item()}


def measure_shares(clips: Sequence[SyntheticClip], maps_of: Maps) -> dict[str, float]:
    """Return the shares of points matched within some model pixels, and areas under the curve.

    They are named ``near_2px``, ``near_auc`` and so on. Points of a clip's first frame are searched
    in all of its second frame ("near"), and of its third and fourth frame, which belong to another
    window ("far"). The area is the probability that a visible point has a higher similarity than a
    hidden one.

    Args:
        clips: the clips for validation.
        maps_of: returns the feature maps of a clip's frames.

    """
    found: dict[str, list[_Matches]] = {"near": [], "far": []}
    for clip in clips:
        maps = maps_of(clip)
        for target, distance in ((1, "near"), (2, "far"), (3, "far")):
            found[distance].append(_match_points(clip, maps, target))
    return {
        name: value
        for distance, parts in found.items()
        for name, value in _summarise_matches(distance, parts).items()
    }


def auc(seen: NDArray[np.floating], hidden: NDArray[np.floating]) -> float:
    """Return the probability that one of ``seen`` [N] exceeds one of ``hidden`` [M].

    Ties count half.
    """
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
    shares = {f"{distance}_{pixels}px": float((errors < pixels).mean()) for pixels in SHARES_WITHIN}
    return shares | {f"{distance}_auc": auc(seen, hidden)}


def encode_patches(clip: SyntheticClip) -> list[FeatureMap]:
    """Return maps of the 16 x 16 raw pixels around each cell, the baseline of validation."""
    patches = torch.nn.functional.unfold(
        to_images(clip.frames), kernel_size=2 * STRIDE, padding=STRIDE // 2, stride=STRIDE
    )
    grid = _make_grid(clip)
    return [FeatureMap(grid, p.T.reshape(grid.rows, grid.columns, -1).numpy()) for p in patches]


def _encode_clip(recipe: Recipe, clip: SyntheticClip) -> list[FeatureMap]:
    windows = _encode_windows(recipe, clip)
    sigma = torch.full((1,), SIGMA)
    # The same noise for every window, as in an exported graph.
    runs = [recipe.describe(w[None], sigma, torch.Generator().manual_seed(0)) for w in windows]
    grid = _make_grid(clip)
    return [FeatureMap(grid, frame.numpy()) for run in runs for frame in run[0]]


def _encode_windows(recipe: Recipe, clip: SyntheticClip) -> Tensor:
    return join_windows(recipe.encoder(to_images(clip.frames)))


def _make_grid(clip: SyntheticClip) -> Grid:
    return Grid(clip.frames.shape[1] // STRIDE, clip.frames.shape[2] // STRIDE, STRIDE)


def _match_points(clip: SyntheticClip, maps: list[FeatureMap], target: int) -> _Matches:
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


def _measure_denoising(recipe: Recipe, windows: Tensor, sigma: float) -> float:
    generator = torch.Generator().manual_seed(1)
    level = torch.full((1,), sigma)
    return float(torch.cat([recipe.denoising(w[None], level, generator) for w in windows]).mean())
