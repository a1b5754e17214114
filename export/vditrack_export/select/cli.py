"""The verb ``vditrack select``."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from vditrack.errors import InputError, VditrackError
from vditrack.evaluation.datasets import Dataset, open_dataset
from vditrack.files import staged_folder
from vditrack.progress import progress_bars
from vditrack_export.card import Card, load_card, transformer_of
from vditrack_export.select.asked import asked_bands, asked_blocks, asked_levels
from vditrack_export.select.writing import check_destination, chosen_feature, write_card

if TYPE_CHECKING:
    from vditrack_export.select.run import Model
    from vditrack_export.select.scores import Choice, Scores, Space

SCORES, HEAT_MAP = "scores.json", "heatmap.png"
RESULTS = frozenset({SCORES, HEAT_MAP})


def select(
    card: Annotated[str, typer.Argument(help="Name of a model card, or the path of one (.toml).")],
    data: Annotated[
        list[str],
        typer.Option(
            help="Clips with known tracks, as eval takes them: synthetic:SEED, tabletop:SEED, or a "
            "path. May be given again.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoint that the card names.", show_default=False),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="The architecture alone, which knows nothing."),
    ] = False,
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="File for the embedding of the empty prompt: read if it exists, else written.",
            show_default=False,
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Only the first clips of each data set.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Of each clip, from its beginning.")] = 25,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Noise levels, as in 0.05,0.1; the card's, 0.05, 0.1, 0.2 and 0.4 by default."
        ),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Blocks, as in 0-4 or 0,8,16-20; all by default.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="Parts of the rotary frequencies, from the highest, as in 0-1,0.4-1; the card's, "
            "0-1, 0.15-1, 0.4-1 and 0.6-1 by default."
        ),
    ] = None,
    tensor: Annotated[
        Literal["keys", "queries", "hidden"] | None,
        typer.Option(help="What is read; the card's by default."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the heat map and all scores."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="File for a new card (.toml) with the best choice.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the block, head, noise level and frequencies that track best, on clips with truth."""
    if (weights is None) != random_weights:
        raise InputError("give either --weights DIR or --random-weights.")
    if write is not None:
        check_destination(write)
    shipped = load_card(card)
    wanted = _with_feature(shipped, tensor=tensor or shipped.feature.tensor)
    asked = (
        asked_levels(noise, wanted),
        asked_blocks(blocks, transformer_of(wanted).layers),
        asked_bands(bands, wanted),
    )
    datasets = [open_dataset(source, "tapvid") for source in data]
    _require()
    space = _space(wanted, *asked)
    facts = _facts(wanted, datasets, weights, frames)
    if weights is None:
        typer.echo("warning: random weights know nothing, whatever scores best.", err=True)
    with _results(output) as folder:
        with progress_bars(quiet=as_json) as bars:
            model = _model(wanted, space, weights, prompt)
            scores = _scored(model, space, datasets, (clips, frames), bars)
        # With another tensor the card's own choice was not tried.
        own = scores.choice_of(shipped) if wanted == shipped else None
        _tell(scores, own, facts, folder, as_json=as_json)
    if write is not None:
        feature = chosen_feature(wanted.feature, scores.ranked()[0])
        write_card(card, feature, _chosen_by(scores, facts), write)
    if not as_json:
        for written in filter(None, (output, write)):
            typer.echo(f"written: {written}")


def _require() -> None:
    """Refuse to begin where something is not installed that is needed at the end."""
    from importlib import import_module

    for name in ("torch", "diffusers", "scipy", "matplotlib"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise VditrackError(
                f"select needs {error.name}, which is not installed. "
                "Run `pip install vditrack[export,eval,cpu]`."
            ) from error


def _space(
    card: Card,
    levels: Sequence[float],
    blocks: tuple[int, ...],
    ranges: Sequence[tuple[float, float]],
) -> "Space":
    from vditrack_export.select.bands import make_bands
    from vditrack_export.select.levels import denoising_at
    from vditrack_export.select.scores import Space

    # A schedule of steps may have one step for several levels.
    steps = tuple(dict.fromkeys(denoising_at(card, level) for level in levels))
    return Space(steps, blocks, make_bands(card, ranges), transformer_of(card).heads)


def _facts(
    card: Card, datasets: Sequence[Dataset], weights: Path | None, frames: int
) -> dict[str, str]:
    """What a reader needs to know to run the same again."""
    return {
        "card": card.name,
        "data": ", ".join(dataset.name for dataset in datasets),
        "weights": "random" if weights is None else str(weights),
        "tensor": card.feature.tensor,
        "frames": str(frames),
        "size": f"{card.input.height}x{card.input.width}",
        "vditrack": version("vditrack"),
    }


def _scored(
    model: "Model",
    space: "Space",
    datasets: Sequence[Dataset],
    most: tuple[int | None, int],
    bars: Progress,
) -> "Scores":
    """Score on so many clips of each data set, and so many frames of each clip."""
    from vditrack_export.select.run import score

    clips, frames = most
    each = chain.from_iterable(islice(dataset.clips, clips) for dataset in datasets)
    task = bars.add_task("reading", total=_count(datasets, clips))

    def show(clip: str, share: float) -> None:
        bars.update(task, advance=share, description=clip)

    scores = score(model, space, each, frames, show)
    done = len(scores.clips)
    bars.update(task, total=done, completed=done)
    return scores


@contextmanager
def _results(output: Path | None) -> Iterator[Path | None]:
    """Yield a scratch folder that takes the name asked for, if one is."""
    if output is None:
        yield None
        return
    with staged_folder(output, RESULTS) as folder:
        yield folder


def _model(card: Card, space: "Space", weights: Path | None, prompt: Path | None) -> "Model":
    from vditrack_export.checkpoint import load_checkpoint, random_checkpoint
    from vditrack_export.select.run import Model
    from vditrack_export.text import empty_prompt, random_prompt

    # Of a checkpoint, only the blocks up to the card's are read.
    deepest = _with_feature(card, block=max(space.blocks))
    if weights is None:
        return Model(card, random_checkpoint(deepest), random_prompt(card))
    checkpoint = load_checkpoint(deepest, weights)
    return Model(card, checkpoint, empty_prompt(card, weights, prompt))


def _tell(
    scores: "Scores",
    own: "Choice | None",
    facts: dict[str, str],
    folder: Path | None,
    *,
    as_json: bool,
) -> None:
    from vditrack_export.select.heatmap import draw_heat_map
    from vditrack_export.select.report import as_json as plain_json
    from vditrack_export.select.report import table

    told = json.dumps(plain_json(scores, own, facts), allow_nan=False)
    if folder is not None:
        (folder / SCORES).write_text(told, encoding="utf-8")
        draw_heat_map(scores, f"{facts['card']} on {facts['data']}", folder / HEAT_MAP)
    if as_json:
        typer.echo(told)
    else:
        Console().print(table(scores, own, facts))


def _chosen_by(scores: "Scores", facts: dict[str, str]) -> str:
    levels, blocks, bands, readings = scores.space.shape
    best = scores.estimate(scores.ranked()[0])
    random = ", random weights" * (facts["weights"] == "random")
    return (
        f"best by `vditrack select` on {facts['data']} ({len(scores.clips)} clips{random}) of "
        f"{levels} x {blocks} x {bands} x {readings} noise levels, blocks, bands and heads: "
        f"δ {best.mean:.1f}%"
    )


def _with_feature(card: Card, **changes: object) -> Card:
    feature = msgspec.structs.replace(card.feature, **changes)
    return msgspec.structs.replace(card, feature=feature)


def _count(datasets: Sequence[Dataset], clips: int | None) -> int | None:
    """Clips of all, where that is known."""
    lengths = [clips if d.length is None else min(d.length, clips or d.length) for d in datasets]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None
