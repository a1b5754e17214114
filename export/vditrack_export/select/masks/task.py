"""Selection for masks, from the options to the results."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.progress import Progress

from vditrack.atomic_files import ResultsFolder
from vditrack.cli.console import PlainConsole, echo
from vditrack.cli.progress import progress_bars
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.evaluation.datasets.registry import Dataset
from vditrack_export.card import Card, Masks
from vditrack_export.select.masks.curves import draw_curves
from vditrack_export.select.masks.feature_cache import FeatureCache, MapShape
from vditrack_export.select.masks.report import make_mask_table, masks_to_json
from vditrack_export.select.masks.run import (
    Advance,
    MaskedClip,
    StartProgress,
    crop_clip,
    score_masks,
    store_features,
)
from vditrack_export.select.masks.scores import MaskClips, MaskScores
from vditrack_export.select.masks.search_space import (
    PARTS,
    MaskSpace,
    PartName,
    Trial,
    make_own_trial,
    make_part_card,
    replace_masks,
)
from vditrack_export.select.model import (
    list_denoising_steps,
    load_model,
    load_prompt,
    locate_options,
)
from vditrack_export.select.new_card import write_card
from vditrack_export.select.options import SelectOptions

SCORES, CURVES = "scores.json", "curves.png"
RESULTS = frozenset({SCORES, CURVES})
_SECTIONS = ("masks.motion.feature", "masks.appearance.feature", "masks.propagation")


def select_for_masks(
    options: SelectOptions,
    card: Card,
    masks: Masks,
    levels: Sequence[float],
    blocks: tuple[int, ...],
    weights: tuple[float, ...],
    datasets: Sequence[Dataset],
) -> None:
    """Score either part and both fused, report the best, and write the files of the options.

    Args:
        options: the options that both tasks share.
        card: the card of the checkpoint.
        masks: its section for masks: windows, tensors, heads and the settings of propagation.
        levels: the noise levels to try for each part.
        blocks: the blocks to try, rising.
        weights: the weights of motion to try, between 0 and 1.
        datasets: the data sets, with true masks.

    Raises:
        VditrackError: the checkpoint, a clip or the folder for the results is refused.

    """
    parts = {part: make_part_card(card, masks, part) for part in PARTS}
    steps = {part: list_denoising_steps(parts[part], levels) for part in PARTS}
    space = MaskSpace(steps, blocks, weights)
    options = locate_options(options, card, [step for part in PARTS for step in steps[part]])
    own = _find_in_space(make_own_trial(masks), space)
    facts = {"task": "masks", **options.describe_run(card, datasets)}
    with options.open_results(RESULTS, SCORES) as folder:
        with progress_bars(quiet=options.as_json) as bars:
            clips, names = _read_clips(options, datasets, bars)
            scores = _score(options, parts, masks, space, clips, names, own, bars)
        _report(scores, own, masks, facts, folder, printed=options.as_json)
    if options.write is not None:
        chosen = replace_masks(masks, *scores.chosen())
        wanted = msgspec.structs.replace(card, masks=chosen)
        origin = _describe_origin(scores, facts)
        write_card(options.card, wanted, _SECTIONS, origin, options.write)


def _find_in_space(own: Trial, space: MaskSpace) -> Trial | None:
    """Return the card's own choice, or None if a part of it is not in the search space."""
    settings = [setting for part in PARTS for setting in space.settings(part)]
    there = all(one is None or one in settings for one in (own.motion, own.appearance))
    return own if there else None


def _read_clips(
    options: SelectOptions, datasets: Sequence[Dataset], bars: Progress
) -> tuple[list[MaskedClip], MaskClips]:
    clips: list[MaskedClip] = []
    of_set: list[int] = []
    advance = _show_progress(bars)("reading", options.count_clips(datasets))
    for number, dataset in enumerate(datasets):
        for clip in options.first_clips(dataset):
            clips.append(crop_clip(clip, options.frames))
            of_set.append(number)
            advance()
        if number not in of_set:
            raise InputError(f"{dataset.name} has no clips. Leave it out.")
    sets = tuple(dataset.name for dataset in datasets)
    return clips, MaskClips(sets, tuple(clip.name for clip in clips), tuple(of_set))


def _score(
    options: SelectOptions,
    parts: Mapping[PartName, Card],
    masks: Masks,
    space: MaskSpace,
    clips: Sequence[MaskedClip],
    names: MaskClips,
    own: Trial | None,
    bars: Progress,
) -> MaskScores:
    start_progress = _show_progress(bars)
    with tempfile.TemporaryDirectory(prefix="vditrack-select-") as scratch:
        cache = FeatureCache(Path(scratch), {part: _map_shape(parts[part]) for part in PARTS})
        frames = sum(len(clip.frames) for clip in clips)
        cache.require_room(frames, {part: len(space.settings(part)) for part in PARTS})
        prompt = load_prompt(parts["motion"], options)
        for part in PARTS:
            # Loaded for each part, whose window the model has to fit, and released after it.
            model = load_model(parts[part], space.blocks, space.levels[part], prompt, options)
            store_features(model, space.settings(part), clips, cache, start_progress)
            del model
        return score_masks(masks.propagation, space, clips, names, cache, start_progress, own)


def _map_shape(card: Card) -> MapShape:
    size, cell = card.input, card.cell
    channels = len(card.feature.heads) * len(card.family.denoiser.channels(card.feature))
    return MapShape(Grid(size.height // cell, size.width // cell, cell), channels)


def _show_progress(bars: Progress) -> StartProgress:
    """Return a function that shows each stage as a bar of its own."""

    def start(name: str, total: int | None) -> Advance:
        task = bars.add_task(name, total=total)
        return lambda: bars.advance(task)

    return start


def _report(
    scores: MaskScores,
    own: Trial | None,
    masks: Masks,
    facts: dict[str, str],
    folder: ResultsFolder | None,
    *,
    printed: bool,
) -> None:
    text = json.dumps(masks_to_json(scores, own, masks, facts), allow_nan=False)
    if printed:
        echo(text)
    else:
        PlainConsole().print(make_mask_table(scores, own, facts))
    if scores.warning:
        echo(f"warning: {scores.warning}", err=True)
    if folder is not None:
        with folder.file(SCORES) as path:
            path.write_text(text, encoding="utf-8")
        with folder.file(CURVES) as path:
            draw_curves(scores, facts["card"], path)


def _describe_origin(scores: MaskScores, facts: dict[str, str]) -> str:
    best = scores.mean(scores.by_trial[scores.ranked[0]])
    random = ", random weights" * (facts["weights"] == "random")
    return (
        f"best by `vditrack select --task masks` on {facts['data']} ({len(scores.clips.names)} "
        f"clips{random}) of {len(scores.by_trial)} settings: J&F {best:.1f}%"
    )
