"""The verb ``vditrack calibrate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.cli.progress import progress_bars
from vditrack.errors import VditrackError
from vditrack.evaluation.datasets.registry import Dataset, open_dataset

if TYPE_CHECKING:
    from vditrack_export.calibrate.rounds import Calibration

DATA = ("synthetic:1", "synthetic:2")


def calibrate(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a bundle whose points are held.", show_default=False)
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="Clips with known tracks, as eval takes them: synthetic:SEED, tabletop:SEED, or a "
            f"path. May be given again; {' and '.join(DATA)} by default."
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Only the first clips of each data set.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Card (.toml) to put the weights into.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit how much each sign that a point is seen weighs, on clips with truth."""
    from vditrack_export.calibrate.report import as_json as plain_json
    from vditrack_export.calibrate.report import tables
    from vditrack_export.calibrate.rounds import require_flow_tracking

    checked = load_bundle(bundle)
    require_flow_tracking(checked.manifest.matching)
    if write is not None:
        _require_editor()
        from vditrack_export.calibrate.writing import check_card, write_weights

        check_card(write, checked.manifest.source.card)
    datasets = [open_dataset(source, "tapvid") for source in dict.fromkeys(on or DATA)]
    found, count = _calibrated(checked, datasets, clips, quiet=as_json)
    facts = {
        "bundle": checked.manifest.name,
        "data": ", ".join(dataset.name for dataset in datasets),
        "clips": str(count),
        "vditrack": version("vditrack"),
    }
    if as_json:
        typer.echo(json.dumps(plain_json(found, facts), allow_nan=False))
    else:
        Console().print(tables(found, facts))
    if write is not None:
        write_weights(write, found.chosen.weights, _origin(found, facts))
        if not as_json:
            typer.echo(f"written: {write}; export it again for a bundle with these weights.")


def _require_editor() -> None:
    """Check before the work begins that the card can be edited at its end."""
    from importlib import import_module

    try:
        import_module("tomlkit")
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"--write needs {error.name}, which is not installed. Run `pip install tomlkit`."
        ) from error


def _calibrated(
    bundle: Bundle, datasets: Sequence[Dataset], clips: int | None, *, quiet: bool
) -> tuple[Calibration, int]:
    """Calibrate on so many clips of each data set; and how many those were in all."""
    from vditrack.acceptance import verify_tracks
    from vditrack.features.extractor import FeatureExtractor
    from vditrack.inference.selection import open_backend
    from vditrack_export.calibrate.clips import described
    from vditrack_export.calibrate.rounds import FOLLOWED, calibrated

    backend = open_backend(bundle, "auto", verify_tracks)
    extractor = FeatureExtractor(bundle, backend.open_graph)
    each = chain.from_iterable(islice(dataset.clips, clips) for dataset in datasets)
    with TemporaryDirectory() as folder, progress_bars(quiet=quiet) as bars:
        describing = bars.add_task("describing", total=_count(datasets, clips))
        advanced = partial(bars.advance, describing)
        read = [
            described(clip, extractor, Path(folder) / f"{number}.npy", advanced)
            for number, clip in enumerate(each)
        ]
        bars.update(describing, total=len(read), completed=len(read))
        following = bars.add_task("following", total=FOLLOWED * len(read))
        found = calibrated(read, bundle.manifest.matching, partial(bars.advance, following))
        bars.update(following, completed=FOLLOWED * len(read))
        return found, len(read)


def _origin(found: Calibration, facts: dict[str, str]) -> str:
    before, after = found.tried[0].means, found.chosen.means
    return (
        f"fitted on {facts['data']} ({facts['clips']} clips): average Jaccard "
        f"{before.average_jaccard:.1f} to {after.average_jaccard:.1f}, occlusion accuracy "
        f"{before.occlusion_accuracy:.1f} to {after.occlusion_accuracy:.1f}"
    )


def _count(datasets: Sequence[Dataset], clips: int | None) -> int | None:
    """Clips of all, where that is known."""
    lengths = [clips if d.length is None else min(d.length, clips or d.length) for d in datasets]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None
