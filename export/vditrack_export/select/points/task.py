"""Selection for points, from what is asked to what is written."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from vditrack.cli.progress import progress_bars
from vditrack.evaluation.datasets.registry import Dataset
from vditrack_export.card import Card, load_card
from vditrack_export.pipeline.checkpoint import load_checkpoint, random_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt, random_prompt
from vditrack_export.select.options import Asked
from vditrack_export.select.points.choice import chosen_feature, write_card
from vditrack_export.select.points.frequency_bands import Range, make_bands
from vditrack_export.select.points.heatmap import draw_heat_map
from vditrack_export.select.points.report import as_json, table
from vditrack_export.select.points.run import Model, score
from vditrack_export.select.points.scores import Choice, Scores, Space

SCORES, HEAT_MAP = "scores.json", "heatmap.png"
RESULTS = frozenset({SCORES, HEAT_MAP})


def select_for_points(
    asked: Asked,
    card: Card,
    levels: Sequence[float],
    blocks: tuple[int, ...],
    ranges: Sequence[Range],
    datasets: Sequence[Dataset],
) -> None:
    """Score every combination, tell the best, and write what is asked for.

    Args:
        asked: where from and where to.
        card: it may read another tensor than the one that is asked for.
        levels: of noise.
        blocks: rising.
        ranges: of rotary frequencies.
        datasets: with true tracks.

    Raises:
        VditrackError: the checkpoint, a clip or the place for results is refused.

    """
    # A schedule of steps may have one step for several levels.
    step = card.family.denoiser.denoising_at
    steps = tuple(dict.fromkeys(step(card.feature, level) for level in levels))
    space = Space(
        steps, blocks, make_bands(card, ranges), card.transformer.require_transformer().heads
    )
    size = card.input
    facts = asked.facts(card, datasets) | {
        "tensor": card.feature.tensor,
        "size": f"{size.height}x{size.width}",
    }
    with asked.results(RESULTS) as folder:
        with progress_bars(quiet=asked.as_json) as bars:
            scores = _scored(_model(card, blocks, asked), space, datasets, asked, bars)
        # With another tensor the card's own choice was not tried.
        shipped = load_card(asked.card)
        own = scores.choice_of(shipped) if card == shipped else None
        _tell(scores, own, facts, folder, printed=asked.as_json)
    if asked.write is not None:
        feature = chosen_feature(card.feature, scores.ranked()[0])
        wanted = msgspec.structs.replace(card, feature=feature)
        write_card(asked.card, wanted, ["feature"], _chosen_by(scores, facts), asked.write)


def _model(card: Card, blocks: tuple[int, ...], asked: Asked) -> Model:
    # Of a checkpoint, only the blocks up to the card's are read.
    deepest = msgspec.structs.replace(card.feature, block=max(blocks))
    read = msgspec.structs.replace(card, feature=deepest)
    if asked.weights is None:
        return Model(card, random_checkpoint(read), random_prompt(card))
    checkpoint = load_checkpoint(read, asked.weights)
    return Model(card, checkpoint, empty_prompt(card, asked.weights, asked.prompt))


def _scored(
    model: Model, space: Space, datasets: Sequence[Dataset], asked: Asked, bars: Progress
) -> Scores:
    each = chain.from_iterable(map(asked.first, datasets))
    task = bars.add_task("reading", total=asked.count(datasets))

    def show(clip: str, share: float) -> None:
        bars.update(task, advance=share, description=clip)

    scores = score(model, space, each, asked.frames, show)
    done = len(scores.clips)
    bars.update(task, total=done, completed=done)
    return scores


def _tell(
    scores: Scores, own: Choice | None, facts: dict[str, str], folder: Path | None, *, printed: bool
) -> None:
    told = json.dumps(as_json(scores, own, facts), allow_nan=False)
    if folder is not None:
        (folder / SCORES).write_text(told, encoding="utf-8")
        draw_heat_map(scores, f"{facts['card']} on {facts['data']}", folder / HEAT_MAP)
    if printed:
        typer.echo(told)
    else:
        Console().print(table(scores, own, facts))


def _chosen_by(scores: Scores, facts: dict[str, str]) -> str:
    levels, blocks, bands, readings = scores.space.shape
    best = scores.estimate(scores.ranked()[0])
    random = ", random weights" * (facts["weights"] == "random")
    return (
        f"best by `vditrack select` on {facts['data']} ({len(scores.clips)} clips{random}) of "
        f"{levels} x {blocks} x {bands} x {readings} noise levels, blocks, bands and heads: "
        f"δ {best.mean:.1f}%"
    )
