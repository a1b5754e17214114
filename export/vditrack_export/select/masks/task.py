"""Selection for masks, from what is asked to what is written."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from vditrack.cli.progress import progress_bars
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.evaluation.datasets.registry import Dataset
from vditrack_export.card import Card, Masks
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint, random_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt, random_prompt
from vditrack_export.select.masks.curves import draw_curves
from vditrack_export.select.masks.feature_cache import Kept, Shape
from vditrack_export.select.masks.features import PartModel
from vditrack_export.select.masks.report import mask_table, masks_as_json
from vditrack_export.select.masks.run import (
    Done,
    MaskedClip,
    Report,
    begun,
    keep_features,
    score_masks,
)
from vditrack_export.select.masks.scores import MaskClips, MaskScores
from vditrack_export.select.masks.search_space import (
    PARTS,
    MaskSpace,
    PartName,
    Trial,
    chosen_masks,
    own_trial,
    part_card,
)
from vditrack_export.select.options import Asked
from vditrack_export.select.points.choice import write_card

SCORES, CURVES = "scores.json", "curves.png"
RESULTS = frozenset({SCORES, CURVES})
_SECTIONS = ("masks.motion.feature", "masks.appearance.feature", "masks.propagation")


def select_for_masks(
    asked: Asked,
    card: Card,
    masks: Masks,
    levels: Sequence[float],
    blocks: tuple[int, ...],
    weights: tuple[float, ...],
    datasets: Sequence[Dataset],
) -> None:
    """Score either part and both fused, tell the best, and write what is asked for.

    Args:
        asked: where from and where to.
        card: of the checkpoint.
        masks: what it says of them: windows, tensors, heads, and how labels are carried.
        levels: of noise, that each part is tried at.
        blocks: rising.
        weights: of motion, between 0 and 1.
        datasets: with true masks.

    Raises:
        VditrackError: the checkpoint, a clip or the place for results is refused.

    """
    parts = {part: part_card(card, masks, part) for part in PARTS}
    # A schedule of steps may have one step for several levels.
    steps = {
        part: tuple(
            dict.fromkeys(
                card.family.denoiser.denoising_at(card.feature, level) for level in levels
            )
        )
        for part, card in parts.items()
    }
    space = MaskSpace(steps, blocks, weights)
    own = _tried(own_trial(masks), space)
    facts = {"task": "masks", **asked.facts(card, datasets)}
    with asked.results(RESULTS) as folder:
        with progress_bars(quiet=asked.as_json) as bars:
            clips, about = _read(asked, datasets, bars)
            scores = _scored(asked, parts, masks, space, clips, about, own, bars)
        _tell(scores, own, masks, facts, folder, printed=asked.as_json)
    if asked.write is not None:
        chosen = chosen_masks(masks, *scores.chosen())
        wanted = msgspec.structs.replace(card, masks=chosen)
        write_card(asked.card, wanted, _SECTIONS, _chosen_by(scores, facts), asked.write)


def _tried(own: Trial, space: MaskSpace) -> Trial | None:
    """Return the card's own choice, if all of it is in the space."""
    settings = [setting for part in PARTS for setting in space.settings(part)]
    there = all(one is None or one in settings for one in (own.motion, own.appearance))
    return own if there else None


def _read(
    asked: Asked, datasets: Sequence[Dataset], bars: Progress
) -> tuple[list[MaskedClip], MaskClips]:
    clips: list[MaskedClip] = []
    of_set: list[int] = []
    done = _reporting(bars)("reading", asked.count(datasets))
    for number, dataset in enumerate(datasets):
        for clip in asked.first(dataset):
            clips.append(begun(clip, asked.frames))
            of_set.append(number)
            done()
        if number not in of_set:
            raise InputError(f"{dataset.name} has no clips. Leave it out.")
    sets = tuple(dataset.name for dataset in datasets)
    return clips, MaskClips(sets, tuple(clip.name for clip in clips), tuple(of_set))


def _scored(
    asked: Asked,
    parts: Mapping[PartName, Card],
    masks: Masks,
    space: MaskSpace,
    clips: Sequence[MaskedClip],
    about: MaskClips,
    own: Trial | None,
    bars: Progress,
) -> MaskScores:
    report = _reporting(bars)
    with tempfile.TemporaryDirectory(prefix="vditrack-select-") as scratch:
        kept = Kept(Path(scratch), {part: _shape(parts[part]) for part in PARTS})
        frames = sum(len(clip.frames) for clip in clips)
        kept.require_room(frames, {part: len(space.settings(part)) for part in PARTS})
        prompt = _prompt(parts["motion"], asked)
        for part in PARTS:
            # Read for each part, whose window it has to fit, and kept no longer than that.
            model = PartModel(parts[part], _checkpoint(parts[part], space.blocks, asked), prompt)
            keep_features(model, space.settings(part), clips, kept, report)
            del model
        return score_masks(masks.propagation, space, clips, about, kept, report, own)


def _shape(card: Card) -> Shape:
    size, cell = card.input, card.cell
    channels = len(card.feature.heads) * len(card.family.denoiser.channels(card.feature))
    return Shape(Grid(size.height // cell, size.width // cell, cell), channels)


def _prompt(card: Card, asked: Asked) -> Tensor:
    if asked.weights is None:
        return random_prompt(card)
    return empty_prompt(card, asked.weights, asked.prompt)


def _checkpoint(card: Card, blocks: tuple[int, ...], asked: Asked) -> Checkpoint:
    # Of a checkpoint, only the blocks up to the card's are read.
    deepest = msgspec.structs.replace(card.feature, block=max(blocks))
    read = msgspec.structs.replace(card, feature=deepest)
    if asked.weights is None:
        return random_checkpoint(read)
    return load_checkpoint(read, asked.weights)


def _reporting(bars: Progress) -> Report:
    """Show each kind of work as a bar of its own, with an estimate of the time left."""

    def begin(name: str, total: int | None) -> Done:
        task = bars.add_task(name, total=total)
        return lambda: bars.advance(task)

    return begin


def _tell(
    scores: MaskScores,
    own: Trial | None,
    masks: Masks,
    facts: dict[str, str],
    folder: Path | None,
    *,
    printed: bool,
) -> None:
    told = json.dumps(masks_as_json(scores, own, masks, facts), allow_nan=False)
    if folder is not None:
        (folder / SCORES).write_text(told, encoding="utf-8")
        draw_curves(scores, facts["card"], folder / CURVES)
    if printed:
        typer.echo(told)
    else:
        Console().print(mask_table(scores, own, facts))


def _chosen_by(scores: MaskScores, facts: dict[str, str]) -> str:
    best = scores.mean(scores.tried[scores.ranked[0]])
    random = ", random weights" * (facts["weights"] == "random")
    return (
        f"best by `vditrack select --task masks` on {facts['data']} ({len(scores.clips.names)} "
        f"clips{random}) of {len(scores.tried)} settings: J&F {best:.1f}%"
    )
