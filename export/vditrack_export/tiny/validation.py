"""How well the model in training matches, read as the runtime reads it, on held-out photographs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.bundle import Matching
from vditrack.features import FeatureMap
from vditrack.grid import Grid
from vditrack.matching import match
from vditrack.synthetic.clips import SyntheticClip
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.photos import Photo
from vditrack_export.tiny.quadruples import make_quadruple
from vditrack_export.tiny.recipe import Recipe, as_windows, denoising_loss, images

CLIPS, POINTS = 12, 64
HEIGHT, WIDTH = 192, 256
SIGMA = 0.1
DENOISING_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SHARES_WITHIN = (2, 4, 8)
# Numbers that no training run of sensible length reaches.
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
    refine_radius=0,
    refine_margin=0,
)

Maps = Callable[[SyntheticClip], list[FeatureMap]]


def validation_clips(photos: Sequence[Photo]) -> list[SyntheticClip]:
    """Make the clips of validation: four frames each, two near in time and two far."""
    return [
        make_quadruple(np.random.default_rng(_FIRST_CLIP + k), HEIGHT, WIDTH, photos, POINTS)
        for k in range(CLIPS)
    ]


@torch.no_grad()
def validate(recipe: Recipe, clips: Sequence[SyntheticClip]) -> dict[str, float]:
    """Return shares of points matched within some pixels, and denoising losses by noise level."""
    recipe.eval()
    shares = matched_shares(clips, lambda clip: _model_maps(recipe, clip))
    windows = torch.cat([_windows(recipe, clip) for clip in clips])
    losses = {f"denoising_{s}": _denoising(recipe, windows, s) for s in DENOISING_SIGMAS}
    return {**shares, **losses}


def matched_shares(clips: Sequence[SyntheticClip], maps_of: Maps) -> dict[str, float]:
    """Return shares of points matched within some model pixels, e.g. ``near_2px``.

    Points of a clip's first frame are sought in the whole of its second, some frames later
    ("near"), and of its third and fourth, in another window ("far").
    """
    errors: dict[str, list[NDArray[np.float32]]] = {"near": [], "far": []}
    for clip in clips:
        maps = maps_of(clip)
        for target, distance in ((1, "near"), (2, "far"), (3, "far")):
            errors[distance].append(_errors(clip, maps, target))
    return {
        f"{distance}_{pixels}px": float((np.concatenate(found) < pixels).mean())
        for distance, found in errors.items()
        for pixels in SHARES_WITHIN
    }


def patch_maps(clip: SyntheticClip) -> list[FeatureMap]:
    """Describe each cell by the 16 x 16 raw pixels around it: the baseline a model has to beat."""
    patches = torch.nn.functional.unfold(
        images(clip.frames), kernel_size=2 * STRIDE, padding=STRIDE // 2, stride=STRIDE
    )
    grid = _grid(clip)
    return [FeatureMap(grid, p.T.reshape(grid.rows, grid.columns, -1).numpy()) for p in patches]


def _model_maps(recipe: Recipe, clip: SyntheticClip) -> list[FeatureMap]:
    windows = _windows(recipe, clip)
    sigma = torch.full((1,), SIGMA)
    # The same noise for every window, as in an exported graph.
    runs = [recipe.denoise(w[None], sigma, torch.Generator().manual_seed(0)) for w in windows]
    grid = _grid(clip)
    return [FeatureMap(grid, frame.numpy()) for run in runs for frame in run.descriptors[0]]


def _windows(recipe: Recipe, clip: SyntheticClip) -> Tensor:
    return as_windows(recipe.encoder(images(clip.frames)))


def _grid(clip: SyntheticClip) -> Grid:
    return Grid(clip.frames.shape[1] // STRIDE, clip.frames.shape[2] // STRIDE, STRIDE)


def _errors(clip: SyntheticClip, maps: list[FeatureMap], target: int) -> NDArray[np.float32]:
    both = clip.visible[:, 0] & clip.visible[:, target]
    templates = maps[0].sample(clip.points[both, 0])
    anywhere = np.zeros(len(templates), np.bool_)
    found = match(templates, maps[target], clip.points[both, 0], anywhere, _MATCHING)
    return np.asarray(np.linalg.norm(found.points - clip.points[both, target], axis=1))


def _denoising(recipe: Recipe, windows: Tensor, sigma: float) -> float:
    generator = torch.Generator().manual_seed(1)
    losses = [
        denoising_loss(recipe.denoise(w[None], torch.full((1,), sigma), generator), w[None])
        for w in windows
    ]
    return float(torch.cat(losses).mean())
