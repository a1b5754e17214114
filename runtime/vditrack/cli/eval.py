"""The verb ``vditrack eval``."""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import typer
from rich.console import Console

from vditrack.cli.progress import progress_bars
from vditrack.errors import InputError, VditrackError

if TYPE_CHECKING:
    from vditrack.evaluation.protocols import EvaluationProtocol

ALL = ("ours", "klt", "dis", "patches", "still")
OF_MASKS = ("ours", "appearance", "klt", "dis", "patches", "still")

ProtocolName = Literal["tapvid", "heft", "davis", "badja"]
Query = Literal["first", "strided"]
Size = Literal["256", "full"]
_SIZES: dict[str, Size] = {"tapvid": "256", "heft": "full", "davis": "full", "badja": "full"}


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            help="A file or folder of a public data set, or synthetic:SEED, tabletop:SEED, "
            "lookalikes:SEED or different:SEED.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            help="What is asked, and how it is scored. By default davis for lookalikes:SEED and "
            "different:SEED, otherwise tapvid.",
            show_default=False,
        ),
    ] = None,
    query: Annotated[Query, typer.Option(help="Where tapvid asks for a point.")] = "first",
    size: Annotated[
        Size | None,
        typer.Option(help="Of the frames: 256 is tapvid's default, full that of the others."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="ours, klt, dis, patches, still, or a bundle's folder; for masks also appearance "
            "and motion, which are ours with one kind of features alone. May be given again; the "
            "others are compared with the first. By default all but motion that fit the protocol."
        ),
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Only the first clips.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file of the full report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score trackers by the official protocols, on your own copies of the data sets."""
    from vditrack.evaluation.datasets.registry import default_protocol, open_dataset

    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder. Choose the name of a file with -o.")
    protocol = protocol or default_protocol(data)
    chosen = _protocol(protocol, query, size)
    try:
        from vditrack.evaluation.report.report import format_table, summary_json, write_html
        from vditrack.evaluation.report.summary import summarise
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"eval needs {error.name}, which is not installed. "
            "Run `pip install vditrack[eval,cpu]`."
        ) from error
    from vditrack.evaluation.run import evaluate as evaluate_all
    from vditrack.evaluation.run import open_method

    names = list(dict.fromkeys(method or _fitting(protocol)))
    methods = {name: open_method(name) for name in names}
    dataset = open_dataset(data, protocol)
    length = dataset.length if clips is None else min(clips, dataset.length or clips)
    with _progress(length and length * len(names), quiet=as_json) as show:
        results = evaluate_all(islice(dataset.clips, clips), methods, chosen, show)
    summary = summarise(results, names[0])
    facts = _facts(dataset.name, chosen, len(results) // len(names))
    if output:
        write_html(output, summary, results, facts)
    if as_json:
        typer.echo(json.dumps(summary_json(summary, results, facts), allow_nan=False))
        return
    Console().print(format_table(summary, facts))
    if output:
        typer.echo(f"report: {output}")


def _protocol(name: ProtocolName, query: Query, size: Size | None) -> "EvaluationProtocol":
    from vditrack.evaluation.protocols import Badja, Davis, Heft, TapVid

    if name == "tapvid":
        return TapVid(query, size or _SIZES[name])
    if size not in (None, _SIZES[name]) or query != "first":
        raise InputError(f"--protocol {name} has its own queries and size. Leave both options out.")
    other: dict[str, type[Heft | Davis | Badja]] = {"heft": Heft, "davis": Davis, "badja": Badja}
    return other[name]()


def _fitting(protocol: ProtocolName) -> tuple[str, ...]:
    return OF_MASKS if protocol == "davis" else ALL


def _facts(dataset: str, protocol: "EvaluationProtocol", clips: int) -> dict[str, str]:
    """What a reader needs to know to run the same again."""
    options: dict[str, Any] = {
        name: getattr(protocol, name) for name in ("query", "size") if hasattr(protocol, name)
    }
    return {
        "data": dataset,
        "clips": str(clips),
        "protocol": protocol.name,
        **options,
        "vditrack": version("vditrack"),
        # OpenCV comes in wheels of several names.
        "OpenCV": cv2.__version__,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Iterator[Callable[[str, str], None]]:
    """Yield what to call as a method begins on a clip."""
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("reading", total=total)
        begun = 0

        def show(clip: str, method: str) -> None:
            nonlocal begun
            bars.update(task, completed=begun, description=f"{clip}: {method}")
            begun += 1

        yield show
        bars.update(task, completed=begun)
