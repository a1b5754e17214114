"""Verb ``eval``: score trackers by official protocols."""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import typer

from vditrack.atomic_files import check_file_destination
from vditrack.cli.console import PlainConsole, echo
from vditrack.cli.options import (
    DeviceOption,
    HostCodeOption,
    Json,
    SignatureOption,
    VerifyFilesOption,
    choose_backend,
)
from vditrack.cli.progress import progress_bars
from vditrack.errors import InputError, VditrackError, install_command

if TYPE_CHECKING:
    from vditrack.evaluation.protocols import EvaluationProtocol

POINT_METHODS = ("ours", "klt", "dis", "patches", "still")
MASK_METHODS = ("ours", "appearance", "klt", "dis", "patches", "still")

MODES: tuple[Literal["offline"], Literal["causal"]] = ("offline", "causal")
"""How our own methods track: without and with ``--causal``."""

ProtocolName = Literal["tapvid", "heft", "davis", "badja"]
Query = Literal["first", "strided"]
Size = Literal["256", "full"]
_SIZES: dict[str, Size] = {"tapvid": "256", "heft": "full", "davis": "full", "badja": "full"}


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            help="File or folder of a public data set, or synthetic:SEED, deformed:SEED, "
            "long:SEED, leaving:SEED, tabletop:SEED, lookalikes:SEED or different:SEED for clips "
            "that are rendered.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            help="Protocol that chooses the queries and the metrics. Default: davis for "
            "lookalikes:SEED and different:SEED, otherwise tapvid.",
            show_default=False,
        ),
    ] = None,
    query: Annotated[
        Query,
        typer.Option(
            help="Queries of tapvid: the first visible frame of each point, or every fifth frame."
        ),
    ] = "first",
    size: Annotated[
        Size | None,
        typer.Option(
            help="Size of the frames: 256 x 256, or full. Default: 256 for tapvid, otherwise full."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Method to score: ours, klt, dis, patches, still, or the folder of a bundle; for "
            "masks also appearance and motion, which are ours with one kind of features. "
            "Repeatable; the others are compared with the first. Default: all methods of the "
            "protocol except motion."
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="Number of clips to score, from the first. Default: all."),
    ] = None,
    causal: Annotated[
        bool,
        typer.Option(
            "--causal",
            help="Track and propagate as in a live stream, with the frames up to the present "
            "alone. Default: offline, where features also come from the frames ahead.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file that the full report is written to."),
    ] = None,
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    as_json: Json = False,
) -> None:
    """Score trackers by official protocols, on your own copies of the data sets."""
    from vditrack.evaluation.datasets.registry import default_protocol, open_dataset

    if output is not None:
        check_file_destination(output)
    protocol = protocol or default_protocol(data)
    chosen = _make_protocol(protocol, query, size)
    if causal and query == "strided":
        raise InputError(
            "--query strided also evaluates the frames before a query, which no causal tracker "
            "knows. Leave out --causal or --query."
        )
    backend, mode = choose_backend("auto", device), MODES[causal]
    try:
        from vditrack.evaluation.report.report import format_table, summary_json, write_html
        from vditrack.evaluation.report.summary import summarise
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"eval needs {error.name}, which is not installed. "
            f"Run `{install_command('eval', 'cpu')}`."
        ) from error
    from vditrack.evaluation.run import evaluate as evaluate_all
    from vditrack.evaluation.run import open_method
    from vditrack.tracker import Tracker

    names = list(dict.fromkeys(method or _default_methods(protocol)))
    load = partial(
        Tracker.load,
        require_signature=require_signature,
        verify_files=verify_files,
        allow_host_code=allow_host_code,
    )
    methods = {name: open_method(name, load, backend=backend, mode=mode) for name in names}
    dataset = open_dataset(data, protocol, chosen.side)
    length = dataset.length if clips is None else min(clips, dataset.length or clips)
    with _progress_bar(length and length * len(names), quiet=as_json) as show:
        results = evaluate_all(islice(dataset.clips, clips), methods, chosen, show)
    summary = summarise(results, names[0])
    facts = _describe_run(dataset.name, chosen, len(results) // len(names), mode)
    # Printed first: a report that cannot be written costs none of it.
    if as_json:
        echo(json.dumps(summary_json(summary, results, facts), allow_nan=False))
    else:
        PlainConsole().print(format_table(summary, facts))
    if output:
        write_html(output, summary, results, facts)
        if not as_json:
            echo(f"report: {output}")


def _make_protocol(name: ProtocolName, query: Query, size: Size | None) -> "EvaluationProtocol":
    from vditrack.evaluation.protocols import Badja, Davis, Heft, TapVid

    if name == "tapvid":
        return TapVid(query, size or _SIZES[name])
    if size not in (None, _SIZES[name]) or query != "first":
        raise InputError(
            f"--protocol {name} has its own queries and size. Leave out --query and --size."
        )
    other: dict[str, type[Heft | Davis | Badja]] = {"heft": Heft, "davis": Davis, "badja": Badja}
    return other[name]()


def _default_methods(protocol: ProtocolName) -> tuple[str, ...]:
    return MASK_METHODS if protocol == "davis" else POINT_METHODS


def _describe_run(
    dataset: str, protocol: "EvaluationProtocol", clips: int, mode: str
) -> dict[str, str]:
    """Return what a reader needs to repeat the run."""
    options: dict[str, Any] = {
        name: getattr(protocol, name) for name in ("query", "size") if hasattr(protocol, name)
    }
    return {
        "data": dataset,
        "clips": str(clips),
        "protocol": protocol.name,
        **options,
        "mode": mode,
        "vditrack": version("vditrack"),
        # OpenCV comes in wheels of several names.
        "OpenCV": cv2.__version__,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


@contextmanager
def _progress_bar(total: int | None, *, quiet: bool) -> Iterator[Callable[[str, str], None]]:
    """Yield the callback for each (clip, method) that begins."""
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("reading", total=total)
        begun = 0

        def show(clip: str, method: str) -> None:
            nonlocal begun
            bars.update(task, completed=begun, description=f"{clip}: {method}")
            begun += 1

        yield show
        bars.update(task, completed=begun)
