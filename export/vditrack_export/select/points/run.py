"""Scoring points: one pass per window and noise level scores every block and head."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vditrack.arrays import Doubles
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack_export.families.whole_model import Reading
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.select.points.accuracy import ClipAccuracy, count_chance, count_still
from vditrack_export.select.points.pairs import (
    GAPS,
    Window,
    choose_sources,
    list_needed_windows,
)
from vditrack_export.select.points.scores import Scores, Space

ReportShare = Callable[[str, float], None]
"""Called with a clip's name and the share of it that was processed since the last call."""


def score_points(
    model: Backbone,
    space: Space,
    clips: Iterable[AnnotatedClip],
    frames: int,
    report_share: ReportShare,
) -> Scores:
    """Score every choice of a search space on clips with known tracks.

    Args:
        model: the model whose tensors are scored; it is not changed.
        space: the search space.
        clips: the clips, read one at a time.
        frames: the number of frames of each clip, from its beginning.
        report_share: called after each window, see `ReportShare`.

    Raises:
        InputError: a clip cannot be read, or no clip has a point to search.

    """
    names: list[str] = []
    found: list[tuple[Doubles, Doubles, Doubles]] = []
    for clip in clips:
        names.append(clip.name)
        cropped = _crop_clip(clip, frames, model.grid)
        found.append(_score_clip(model, space, cropped, report_share))
    if not any(np.isfinite(accuracy).any() for accuracy, _, _ in found):
        raise InputError(
            f"in no clip is a point visible in two frames that are compared ({_list_gaps()} frames "
            "apart). Give other clips, or more --frames."
        )
    accuracy, chance, still = (np.stack(part) for part in zip(*found, strict=True))
    return Scores(space, tuple(names), accuracy, chance, still)


def _list_gaps() -> str:
    return ", ".join(map(str, GAPS[:-1])) + f" or {GAPS[-1]}"


def _crop_clip(clip: AnnotatedClip, frames: int, grid: Grid) -> AnnotatedClip:
    """Return the first frames of a clip at the model's size."""
    cropped = replace(
        clip,
        frames=np.asarray(clip.frames[:frames]),
        points=clip.points[:, :frames],
        visible=clip.visible[:, :frames],
        masks=None,
    )
    return cropped.resize(grid.width, grid.height)


def _score_clip(
    model: Backbone, space: Space, clip: AnnotatedClip, report_share: ReportShare
) -> tuple[Doubles, Doubles, Doubles]:
    """Return three accuracies in percent.

    Returns:
        The accuracy of every choice, [levels, blocks, bands, readings, gaps], of a random cell,
        [gaps], and of no motion, [gaps].

    """
    size, length = model.card.input, len(clip.frames)
    windows = list_needed_windows(length, size)
    described = {frame for window in windows for frame in window.described if frame < length}
    taken = choose_sources(clip.visible, described)
    arguments = (clip, taken, model.grid, space.bands, len(space.readings), model.card.matching)
    counts = [[ClipAccuracy(*arguments) for _ in space.blocks] for _ in space.levels]
    done: set[int] = set()
    for window in windows:
        fresh = {
            frame: latent
            for latent, frame in enumerate(window.described, size.latents - len(window.described))
            if frame in described - done
        }
        _run_window(model, space, clip, window, fresh, counts)
        done |= fresh.keys()
        report_share(clip.name, 1 / len(windows))
    accuracy = np.stack([[count.hits.percent for count in level] for level in counts])
    baselines = [f(clip, taken, model.grid, described) for f in (count_chance, count_still)]
    return accuracy, baselines[0].percent, baselines[1].percent


def _run_window(
    model: Backbone,
    space: Space,
    clip: AnnotatedClip,
    window: Window,
    fresh: dict[int, int],
    counts: Sequence[Sequence[ClipAccuracy]],
) -> None:
    """Run the model once per noise level and count the matches of the window's new frames.

    Args:
        model: the model.
        space: the search space.
        clip: the clip at the model's size.
        window: the window of the clip.
        fresh: the latent of the window for each frame that no window before described.
        counts: the counts by level and block, changed in place.

    """
    card, cells = model.card, model.grid.rows * model.grid.columns
    reading = Reading(space.blocks, card.feature.tensor, card.feature.rotated)
    frames = torch.from_numpy(np.stack([clip.frames[number] for number in window.frames.tolist()]))
    latents = model.original_latents(frames, card.input.temporal_stride)
    for level, denoising in zip(counts, space.levels, strict=True):
        by_block = dict(zip(space.blocks, level, strict=True))

        def count(block: int, tensor: Tensor, by_block: dict[int, ClipAccuracy] = by_block) -> None:
            by_latent = torch.unflatten(tensor, 0, (-1, cells))
            for frame, latent in fresh.items():
                by_block[block].add(frame, by_latent[latent].contiguous())

        card.family.denoiser.read_blocks(
            model.checkpoint.transformer, reading, denoising, latents, model.prompt, count
        )
