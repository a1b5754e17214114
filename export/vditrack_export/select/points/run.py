"""Clip by clip through a model: one pass a window and noise level scores every block and head."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Doubles
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.families.whole_model import Reading
from vditrack_export.pipeline.checkpoint import Checkpoint
from vditrack_export.select.points.accuracy import ClipAccuracy, chance, still
from vditrack_export.select.points.pairs import GAPS, Window, needed_windows, sources
from vditrack_export.select.points.scores import Scores, Space

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Model:
    """A card's model with what it is given."""

    card: Card
    checkpoint: Checkpoint
    """With all blocks that are read."""
    prompt: Tensor
    """Float32 [tokens, text_dim]."""

    @property
    def grid(self) -> Grid:
        """Of the descriptors."""
        size = self.card.input
        cell = self.card.cell
        return Grid(size.height // cell, size.width // cell, cell)


def score(
    model: Model, space: Space, clips: Iterable[AnnotatedClip], frames: int, report: Report
) -> Scores:
    """Score every choice of a space on clips with known tracks.

    Args:
        model: whose internals are scored; nothing of it is changed.
        space: what is tried.
        clips: read one at a time.
        frames: of each clip, from its beginning.
        report: called with a clip's name and the share of it that was done since the last call.

    Raises:
        InputError: a clip cannot be read, or none has points to be sought.

    """
    names: list[str] = []
    found: list[tuple[Doubles, Doubles, Doubles]] = []
    for clip in clips:
        names.append(clip.name)
        found.append(_clip_scores(model, space, _cropped(clip, frames, model.grid), report))
    if not any(np.isfinite(accuracy).any() for accuracy, _, _ in found):
        raise InputError(
            f"in no clip is a point visible in two frames that are compared ({_gaps()} frames "
            "apart). Give other clips, or more --frames."
        )
    accuracy, by_chance, by_rest = (np.stack(part) for part in zip(*found, strict=True))
    return Scores(space, tuple(names), accuracy, by_chance, by_rest)


def _gaps() -> str:
    return ", ".join(map(str, GAPS[:-1])) + f" or {GAPS[-1]}"


def _cropped(clip: AnnotatedClip, frames: int, grid: Grid) -> AnnotatedClip:
    """Return the beginning of a clip at the model's size."""
    begun = replace(
        clip,
        frames=clip.frames[:frames],
        points=clip.points[:, :frames],
        visible=clip.visible[:, :frames],
        masks=None,
    )
    return begun.resize(grid.width, grid.height)


def _clip_scores(
    model: Model, space: Space, clip: AnnotatedClip, report: Report
) -> tuple[Doubles, Doubles, Doubles]:
    """Accuracies [levels, blocks, bands, readings, gaps], of chance [gaps] and of rest [gaps]."""
    size, length = model.card.input, len(clip.frames)
    looked_at = needed_windows(length, size)
    described = {frame for window in looked_at for frame in window.described if frame < length}
    taken = sources(clip.visible, described)
    make = (clip, taken, model.grid, space.bands, len(space.readings), model.card.matching)
    counts = [[ClipAccuracy(*make) for _ in space.blocks] for _ in space.levels]
    done: set[int] = set()
    for window in looked_at:
        fresh = {
            frame: latent
            for latent, frame in enumerate(window.described, size.latents - len(window.described))
            if frame in described - done
        }
        _run_window(model, space, clip, window, fresh, counts)
        done |= fresh.keys()
        report(clip.name, 1 / len(looked_at))
    accuracy = np.stack([[count.hits.percent for count in level] for level in counts])
    by_chance, by_rest = (f(clip, taken, model.grid, described) for f in (chance, still))
    return accuracy, by_chance.percent, by_rest.percent


def _run_window(
    model: Model,
    space: Space,
    clip: AnnotatedClip,
    window: Window,
    fresh: dict[int, int],
    counts: Sequence[Sequence[ClipAccuracy]],
) -> None:
    """One pass a noise level; ``fresh`` says which latent of the window describes which frame."""
    card, cells = model.card, model.grid.rows * model.grid.columns
    reading = Reading(space.blocks, card.feature.tensor, card.feature.rotated)
    frames = torch.from_numpy(clip.frames[window.frames])
    latents = card.family.encoder.original_latents(
        model.checkpoint.encoder, frames, card.input.temporal_stride
    )
    for level, denoising in zip(counts, space.levels, strict=True):
        by_block = dict(zip(space.blocks, level, strict=True))

        def found(block: int, tensor: Tensor, by_block: dict[int, ClipAccuracy] = by_block) -> None:
            by_latent = torch.unflatten(tensor, 0, (-1, cells))
            for frame, latent in fresh.items():
                by_block[block].add(frame, by_latent[latent].contiguous())

        transformer = model.checkpoint.transformer
        card.family.denoiser.read_blocks(
            transformer, reading, denoising, latents, model.prompt, found
        )
