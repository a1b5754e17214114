"""Selection for points, from the options to the results."""

import json
from collections.abc import Sequence
from itertools import chain

import msgspec
from rich.progress import Progress

from vditrack.atomic_files import ResultsFolder
from vditrack.cli.console import PlainConsole, echo
from vditrack.cli.progress import progress_bars
from vditrack.evaluation.datasets.registry import Dataset
from vditrack_export.card import Card, load_card
from vditrack_export.families.base_shapes import Feature
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.select.model import (
    list_denoising_steps,
    load_model,
    load_prompt,
    locate_options,
)
from vditrack_export.select.new_card import replace_reading, write_card
from vditrack_export.select.options import SelectOptions
from vditrack_export.select.points.frequency_bands import Range, make_bands
from vditrack_export.select.points.heatmap import draw_heat_map
from vditrack_export.select.points.report import make_score_table, to_json
from vditrack_export.select.points.run import score_points
from vditrack_export.select.points.scores import Choice, Scores, Space

SCORES, HEAT_MAP = "scores.json", "heatmap.png"
RESULTS = frozenset({SCORES, HEAT_MAP})


def select_for_points(
    options: SelectOptions,
    card: Card,
    levels: Sequence[float],
    blocks: tuple[int, ...],
    ranges: Sequence[Range],
    datasets: Sequence[Dataset],
) -> None:
    """Score every combination, report the best, and write the files that the options name.

    Args:
        options: the options that both tasks share.
        card: the card, which may read another tensor than the card of the options.
        levels: the noise levels to try.
        blocks: the blocks to try, rising.
        ranges: the ranges of rotary frequencies to try.
        datasets: the data sets, with true tracks.

    Raises:
        VditrackError: the checkpoint, a clip or the folder for the results is refused.

    """
    steps = list_denoising_steps(card, levels)
    options = locate_options(options, card, steps)
    heads = card.require_transformer().heads
    space = Space(steps, blocks, make_bands(card, ranges), heads)
    size = card.input
    facts = options.describe_run(card, datasets) | {
        "tensor": card.feature.tensor,
        "size": f"{size.width}x{size.height}",
    }
    with options.open_results(RESULTS, SCORES) as folder:
        with progress_bars(quiet=options.as_json) as bars:
            model = load_model(card, blocks, steps, load_prompt(card, options), options)
            scores = _score(model, space, datasets, options, bars)
        # With another tensor the card's own choice was not tried.
        own_card = load_card(options.card)
        own = scores.choice_of(own_card) if card == own_card else None
        _report(scores, own, facts, folder, printed=options.as_json)
    if options.write is not None:
        feature = replace_feature(card.feature, scores.ranked()[0])
        wanted = msgspec.structs.replace(card, feature=feature)
        origin = _describe_origin(scores, facts)
        write_card(options.card, wanted, ["feature"], origin, options.write)


def replace_feature(feature: Feature, choice: Choice) -> Feature:
    """Return a card's feature settings with a choice in place of its own."""
    return msgspec.structs.replace(
        replace_reading(feature, choice.block, choice.denoising),
        heads=choice.heads,
        frequency_range=choice.frequency_range,
    )


def _score(
    model: Backbone,
    space: Space,
    datasets: Sequence[Dataset],
    options: SelectOptions,
    bars: Progress,
) -> Scores:
    clips = chain.from_iterable(map(options.first_clips, datasets))
    task = bars.add_task("scoring", total=options.count_clips(datasets))

    def report_share(clip: str, share: float) -> None:
        bars.update(task, advance=share, description=clip)

    scores = score_points(model, space, clips, options.frames, report_share)
    done = len(scores.clips)
    bars.update(task, total=done, completed=done)
    return scores


def _report(
    scores: Scores,
    own: Choice | None,
    facts: dict[str, str],
    folder: ResultsFolder | None,
    *,
    printed: bool,
) -> None:
    text = json.dumps(to_json(scores, own, facts), allow_nan=False)
    if printed:
        echo(text)
    else:
        PlainConsole().print(make_score_table(scores, own, facts))
    if scores.warning:
        echo(f"warning: {scores.warning}", err=True)
    if folder is not None:
        with folder.file(SCORES) as path:
            path.write_text(text, encoding="utf-8")
        with folder.file(HEAT_MAP) as path:
            draw_heat_map(scores, f"{facts['card']} on {facts['data']}", path)


def _describe_origin(scores: Scores, facts: dict[str, str]) -> str:
    levels, blocks, bands, readings = scores.space.shape
    best = scores.estimate(scores.ranked()[0])
    random = ", random weights" * (facts["weights"] == "random")
    return (
        f"best by `vditrack select` on {facts['data']} ({len(scores.clips)} clips{random}) of "
        f"{levels} x {blocks} x {bands} x {readings} noise levels, blocks, bands and heads: "
        f"δ {best.mean:.1f}%"
    )
