"""The verb ``vditrack calibrate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.cli.console import PlainConsole, echo
from vditrack.cli.options import DeviceOption, HostCodeOption, SignatureOption, choose_backend
from vditrack.cli.progress import progress_bars
from vditrack.errors import VditrackError
from vditrack.evaluation.datasets.registry import Dataset, count_clips, open_dataset

Size = Literal["256", "full"]

if TYPE_CHECKING:
    from vditrack.bundle.path_choice import PathChoice
    from vditrack_export.calibrate.margins import Margins
    from vditrack_export.calibrate.rounds import Calibration

DATA = ("synthetic:1", "leaving:1")


def calibrate(
    bundle: Annotated[
        Path,
        typer.Argument(help="Folder of a bundle that tracks by optical flow.", show_default=False),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set with known tracks, as for eval: synthetic:SEED, deformed:SEED, "
            "leaving:SEED, tabletop:SEED, or a path. May be repeated; the default is "
            f"{' and '.join(DATA)}."
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Use only the first clips of each data set.")
    ] = None,
    size: Annotated[
        Size,
        typer.Option(help="Size of the frames: 256 x 256, or full. Distances are those of 256."),
    ] = "256",
    certain: Annotated[
        bool,
        typer.Option(
            "--certain",
            help="Also choose the margins from which on a match by descriptor alone is certain.",
        ),
    ] = False,
    paths: Annotated[
        bool,
        typer.Option(
            "--paths",
            help="Also fit the weights that choose paths offline. Give deformed:SEED too, where "
            "points are doubtful.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(help="Card (.toml) to write the weights to.", show_default=False),
    ] = None,
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit the weights that decide when a point counts as visible, on clips with known tracks."""
    from vditrack_export.calibrate.margins import require_recovery
    from vditrack_export.calibrate.report import make_tables, to_json
    from vditrack_export.calibrate.rounds import list_warnings, require_flow_tracking

    backend = choose_backend("auto", device)
    checked = load_bundle(
        bundle, require_signature=require_signature, allow_host_code=allow_host_code
    )
    flow_tracking = require_flow_tracking(checked.manifest.matching)
    if certain:
        require_recovery(flow_tracking, "--certain")
    if paths:
        require_recovery(flow_tracking, "--paths")
        _require("scipy", "--paths")
    if write is not None:
        _require("tomlkit", "--write")
        from vditrack_export.calibrate.writing import check_card, write_weights

        check_card(write, checked.manifest.source.card)
    datasets = [open_dataset(source, "tapvid") for source in dict.fromkeys(on or DATA)]
    found, margins, chosen_paths, count = _calibrate_bundle(
        checked, backend, datasets, clips, size, certain=certain, paths=paths, quiet=as_json
    )
    facts = {
        "bundle": checked.manifest.name,
        "data": ", ".join(dataset.name for dataset in datasets),
        "clips": str(count),
        "size": size,
        "vditrack": version("vditrack"),
    }
    if as_json:
        echo(json.dumps(to_json(found, facts, margins, chosen_paths), allow_nan=False))
    else:
        PlainConsole().print(make_tables(found, facts, margins, chosen_paths))
    for warning in list_warnings(found):
        echo(f"warning: {warning}", err=True)
    if write is not None:
        write_weights(write, found.chosen.weights, _describe_origin(found, facts), chosen_paths)
        if not as_json:
            echo(f"written: {write}; export it again for a bundle with these weights.")


def _require(module: str, option: str) -> None:
    """Raise an error before the work begins if an option's module is not installed."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"{option} needs {error.name}, which is not installed. Run `pip install {module}`."
        ) from error


def _calibrate_bundle(
    bundle: Bundle,
    backend: str,
    datasets: Sequence[Dataset],
    clips: int | None,
    size: Size,
    *,
    certain: bool,
    paths: bool,
    quiet: bool,
) -> tuple[Calibration, Margins | None, PathChoice | None, int]:
    """Calibrate on the first clips of each data set; also return how many clips were used."""
    from vditrack.acceptance import verify_tracks
    from vditrack.features.extractor import FeatureExtractor
    from vditrack.inference.selection import open_backend
    from vditrack_export.calibrate.clips import encode_clip
    from vditrack_export.calibrate.margins import TRIED, choose_margins
    from vditrack_export.calibrate.paths import collect_examples, fit_paths
    from vditrack_export.calibrate.rounds import PASSES, calibrate_weights, require_flow_tracking

    extractor = FeatureExtractor(bundle, open_backend(bundle, backend, verify_tracks).open_graph)
    used = chain.from_iterable(islice(dataset.clips, clips) for dataset in datasets)
    with TemporaryDirectory() as folder, progress_bars(quiet=quiet) as bars:
        encoding = bars.add_task("encoding", total=count_clips(datasets, clips))
        encoded = [
            encode_clip(
                clip,
                extractor,
                Path(folder) / f"{number}.npy",
                partial(bars.advance, encoding),
                size,
            )
            for number, clip in enumerate(used)
        ]
        bars.update(encoding, total=len(encoded), completed=len(encoded))
        passes = PASSES + (len(TRIED) if certain else 0) + paths
        tracking = bars.add_task("tracking", total=passes * len(encoded))
        matching, advance = bundle.manifest.matching, partial(bars.advance, tracking)
        found = calibrate_weights(encoded, matching, advance)
        margins = chosen_paths = None
        flow_tracking = msgspec.structs.replace(
            require_flow_tracking(matching), visibility=found.chosen.weights
        )
        if certain:
            margins = choose_margins(encoded, matching, flow_tracking, advance)
        if paths:
            examples = collect_examples(encoded, matching, flow_tracking, advance)
            chosen_paths = fit_paths(examples)
        bars.update(tracking, completed=passes * len(encoded))
        return found, margins, chosen_paths, len(encoded)


def _describe_origin(found: Calibration, facts: dict[str, str]) -> str:
    before, after = found.results[0].means, found.chosen.means
    size = ", full size" if facts["size"] == "full" else ""
    return (
        f"fitted on {facts['data']} ({facts['clips']} clips{size}): average Jaccard "
        f"{before.average_jaccard:.1f} to {after.average_jaccard:.1f}, occlusion accuracy "
        f"{before.occlusion_accuracy:.1f} to {after.occlusion_accuracy:.1f}"
    )
