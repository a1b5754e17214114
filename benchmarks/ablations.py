"""What each part of the tracker is worth: the bundled model with one part changed or left out.

    python benchmarks/ablations.py flow-alone                  # one row, on synthetic:0
    python benchmarks/ablations.py all synthetic:0 tabletop:0  # every row, a table for each of DATA
    python benchmarks/ablations.py all --weights RUN/weights   # also what is exported from weights

Each row is scored as ``vditrack eval`` scores it: tapvid, queries where points are first visible,
256 x 256. All but the change named is as in the row ``trained``, the bundle as it is:

- ``raw-pixels``: a descriptor is the pixels themselves, RGB without their mean, of a square twice
  as wide as its cell;
- ``random-weights``: the card's architecture, which has learnt nothing;
- ``no-frequency-selection``: all channels of the heads, in the place of the card's frequencies;
- ``features-alone``: points go where the descriptors match, as in HeFT; pixels are not used;
- ``flow-alone``: points go where optical flow leads, near their predicted positions, and are
  visible until flow loses them for good; no descriptors, no patches;
- ``no-forward-backward``: flow is trusted wherever there is texture to follow: its forward-backward
  error counts as 0;
- ``no-first-patch``: flow is not corrected by the query's patch; the patch still decides what is
  lost, recovers it and contributes to visibility, in the shape that it had at the query or at the
  last recovery;
- ``no-memory``: the query's appearance is forgotten: descriptors and patches are always those of
  the frame before, and lost points are never recovered nor visible;
- ``no-prediction``: neither flow nor recovery has to stay near the predicted position; a lost point
  still moves on at its last velocity, and is first searched for there.

All rows but three have the bundle's weights of visibility. Rows with other descriptors
(``raw-pixels``, ``random-weights``, ``no-frequency-selection``) would be judged by weights that
were fitted to the trained ones, so theirs are fitted anew, as ``vditrack calibrate`` does, on
synthetic:1: do not give that as DATA. Their least similarity of a return stays that of the bundle.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from msgspec.structs import replace

from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.bundle.folder import ENCODER, Bundle, bundled_model, load_bundle
from vditrack.bundle.manifest import Encoder
from vditrack.coordinates import Grid
from vditrack.errors import InputError, VditrackError
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.protocols import TapVid
from vditrack.evaluation.report.summary import MethodSummary, Summary, summarise
from vditrack.evaluation.run import TrackerMethod, evaluate
from vditrack.features.extractor import FeatureExtractor
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.selection import Backend
from vditrack.inference.session import Array, ArraySession, OpenGraph, Session, TensorSpec
from vditrack.tracker import Tracker

CALIBRATED_ON = "synthetic:1"
COLUMNS = ("AJ", "δ", "OA", "found again", "identity kept")
ALL = "all"


@dataclass(frozen=True)
class Given:
    """What rows are made of."""

    bundle: Bundle
    card: str
    """Of the bundle, by name or path: for rows that export it anew."""
    weights: Path | None
    """Of its checkpoint."""
    scratch: Path
    """Folder that bundles may be written to."""
    clips: int | None = None
    """How many of a data set are used, the first ones; None for all."""

    @property
    def settings(self) -> Matching:
        """Those of every row."""
        return self.bundle.manifest.matching


class PixelEncoder(ArraySession):
    """In an encoder's place: latents that are the pixels around each cell, without their mean."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._side = grid, 2 * grid.stride
        frames = TensorSpec((1, grid.height, grid.width, 3), np.dtype(np.uint8))
        self.inputs = {"frames": frames}
        channels = 3 * self._side**2
        latents = TensorSpec((1, channels, 1, grid.rows, grid.columns), np.dtype(np.float32))
        self.outputs = {"latents": latents}

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `vditrack.inference.session.ArraySession`."""
        stride, beyond = self._grid.stride, (self._side - self._grid.stride) // 2
        border = cv2.BORDER_REPLICATE
        frame = cv2.copyMakeBorder(inputs["frames"][0], beyond, beyond, beyond, beyond, border)
        squares = np.lib.stride_tricks.sliding_window_view(frame, (self._side,) * 2, axis=(0, 1))
        pixels = squares[::stride, ::stride].astype(np.float32)
        pixels -= pixels.mean(axis=(3, 4), keepdims=True)
        rows, columns = self._grid.rows, self._grid.columns
        latents = pixels.reshape(rows, columns, -1).transpose(2, 0, 1)
        return {"latents": latents[None, :, None]}


class Unchanged(ArraySession):
    """In a transformer's place: descriptors that are the latents."""

    def __init__(self, latents: TensorSpec) -> None:
        _, channels, count, rows, columns = latents.shape
        self.inputs = {"latents": latents}
        self.outputs = {"descriptors": TensorSpec((count, rows, columns, channels), latents.dtype)}

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `vditrack.inference.session.ArraySession`."""
        return {"descriptors": inputs["latents"][0].transpose(1, 2, 3, 0)}


def require_flow_tracking(bundle: Bundle) -> FlowTracking:
    """Return how a bundle tracks by optical flow.

    Raises:
        InputError: It does not.

    """
    settings = bundle.manifest.matching.flow_tracking
    if settings is None:
        raise InputError(
            f"{bundle.root} tracks by matching alone: its settings have no `flow_tracking`, of "
            "which the rows leave out parts. Give another bundle with --bundle."
        )
    return settings


def of_pixels(bundle: Bundle) -> tuple[Bundle, OpenGraph]:
    """Make a bundle of the same grid whose descriptors are pixels, and what opens its graphs."""
    manifest = bundle.manifest
    out = manifest.output
    encoder = PixelEncoder(Grid(out.rows, out.columns, out.stride))
    latents = encoder.outputs["latents"]
    described = replace(
        manifest,
        input=replace(manifest.input, frames=1, temporal_stride=1, described_frames=1),
        encoder=Encoder(frames=1, caches=0),
        output=replace(out, channels=latents.shape[1]),
    )

    def open_graph(path: Path) -> Session:
        return encoder if path.name == ENCODER else Unchanged(latents)

    return Bundle(bundle.root, described), open_graph


def exported(given: Given, weights: Path | None, **feature: object) -> Bundle:
    """Export the card with its feature changed.

    Args:
        given: names the card.
        weights: folder of the checkpoint; None for random ones.
        feature: fields of the card's feature, and what stands there.

    """
    # Rows of the bundle alone need no torch.
    from vditrack_export.card import load_card  # noqa: PLC0415
    from vditrack_export.checkpoints.sources import Weights  # noqa: PLC0415
    from vditrack_export.pipeline.export import export_bundle  # noqa: PLC0415

    card = load_card(given.card)
    changed = replace(card, feature=replace(card.feature, **feature))
    folder = given.scratch / ("random" if weights is None else "changed")
    return export_bundle(changed, Weights(weights), folder, _tell)


def refitted(given: Given, bundle: Bundle, open_graph: OpenGraph = open_session) -> Tracker:
    """Make a tracker of other descriptors, by the given settings but for weights of visibility.

    These are fitted to the descriptors, on the clips of `CALIBRATED_ON`.
    """
    from vditrack_export.calibrate.clips import encode_clip  # noqa: PLC0415
    from vditrack_export.calibrate.rounds import calibrate_weights  # noqa: PLC0415

    _tell("fitting weights of visibility", CALIBRATED_ON)
    extractor = FeatureExtractor(bundle, open_graph)
    clips = islice(open_dataset(CALIBRATED_ON, "tapvid").clips, given.clips)
    with tempfile.TemporaryDirectory() as folder:
        read = [
            encode_clip(clip, extractor, Path(folder) / f"{number}.npy", _silent)
            for number, clip in enumerate(clips)
        ]
        weights = calibrate_weights(read, given.settings, _silent).chosen.weights
    flow_tracking = replace(require_flow_tracking(given.bundle), visibility=weights)
    settings = replace(given.settings, flow_tracking=flow_tracking)
    return Tracker(bundle, Backend("own", open_graph), settings)


def _with(change: Callable[[FlowTracking], FlowTracking]) -> Callable[[Given], Tracker]:
    """Return what makes a tracker of the bundle whose flow tracking is configured otherwise."""

    def make(given: Given) -> Tracker:
        flow_tracking = change(require_flow_tracking(given.bundle))
        settings = replace(given.settings, flow_tracking=flow_tracking)
        return Tracker(given.bundle, settings=settings)

    return make


def _flow_alone(settings: FlowTracking) -> FlowTracking:
    # Points are visible until they are lost, and no correlation is below -1.
    always = Visibility(
        bias=100.0, correlation=0, first_similarity=0, template_similarity=0, distance=0
    )
    whole = replace(_no_first_patch(settings), min_correlation=-2.0)
    return replace(whole, recovery=None, visibility=always)


def _no_forward_backward(settings: FlowTracking) -> FlowTracking:
    return replace(settings, optical_flow=replace(settings.optical_flow, check_backward=False))


def _no_first_patch(settings: FlowTracking) -> FlowTracking:
    # No correlation is above 1.
    return replace(settings, patches=replace(settings.patches, min_correlation=2.0))


def _no_memory(settings: FlowTracking) -> FlowTracking:
    return replace(settings, recovery=None, remember_query=False)


def _no_prediction(settings: FlowTracking) -> FlowTracking:
    recovery = settings.recovery and replace(settings.recovery, radius=np.inf)
    return replace(settings, max_departure=np.inf, recovery=recovery)


def _raw_pixels(given: Given) -> Tracker:
    return refitted(given, *of_pixels(given.bundle))


def _random_weights(given: Given) -> Tracker:
    return refitted(given, exported(given, weights=None))


def _no_frequency_selection(given: Given) -> Tracker:
    bundle = exported(given, given.weights, frequency_range=(0.0, 1.0))
    theirs, own = bundle.manifest.source, given.bundle.manifest.source
    if theirs.checkpoint_sha256 != own.checkpoint_sha256:
        raise InputError(
            f"{given.bundle.root} was not exported from {given.weights}, so nothing would follow "
            "from a difference. Give the bundle's own checkpoint with --weights."
        )
    return refitted(given, bundle)


def _features_alone(given: Given) -> Tracker:
    return Tracker(given.bundle, settings=replace(given.settings, flow_tracking=None))


ROWS: dict[str, Callable[[Given], Tracker]] = {
    "trained": _with(lambda settings: settings),
    "raw-pixels": _raw_pixels,
    "random-weights": _random_weights,
    "no-frequency-selection": _no_frequency_selection,
    "features-alone": _features_alone,
    "flow-alone": _with(_flow_alone),
    "no-forward-backward": _with(_no_forward_backward),
    "no-first-patch": _with(_no_first_patch),
    "no-memory": _with(_no_memory),
    "no-prediction": _with(_no_prediction),
}
NEED_WEIGHTS = ("no-frequency-selection",)


def rows_of(asked: str, weights: Path | None) -> list[str]:
    """Rows that are run.

    Raises:
        InputError: there is no such row, or it needs weights and there are none.

    """
    if asked == ALL:
        return [name for name in ROWS if weights or name not in NEED_WEIGHTS]
    if asked not in ROWS:
        raise InputError(f"no row {asked!r}: there are {', '.join(ROWS)}, and {ALL}.")
    if asked in NEED_WEIGHTS and weights is None:
        raise InputError(f"{asked} exports the model anew. Give its checkpoint with --weights.")
    return [asked]


def table(summary: Summary) -> Iterator[str]:
    """Lines of the rows x columns in Markdown, in percent, differences from the first in brackets.

    A star is where the difference's own 95% interval leaves out 0, with six clips or more.
    """
    yield f"| row | {' | '.join(COLUMNS)} |"
    yield "|---" * (1 + len(COLUMNS)) + "|"
    for method in summary.methods:
        cells = (_cell(method, name) for name in COLUMNS)
        yield f"| {method.name} | {' | '.join(cells)} |"


def _cell(method: MethodSummary, name: str) -> str:
    estimate = method.means.get(name)
    if estimate is None or np.isnan(estimate.mean):
        return "-"
    if name not in method.differences:
        return f"{estimate.mean:.1f}"
    difference = method.differences[name]
    star = "*" if difference.verdict in ("better", "worse") else ""
    # Adding 0 makes a plus of the minus that rounding leaves before 0.
    return f"{estimate.mean:.1f} ({round(difference.estimate.mean, 1) + 0.0:+.1f}{star})"


def _tell(*parts: str) -> None:
    print(": ".join(parts), file=sys.stderr, flush=True)


def _silent(_: float) -> None:
    """Leave untold what share of a clip is done."""


def compared(data: str, methods: Mapping[str, TrackerMethod], clips: int | None) -> None:
    """Print the table of a data set.

    Raises:
        InputError: it cannot be read.

    """
    dataset = open_dataset(data, "tapvid")
    results = evaluate(islice(dataset.clips, clips), methods, TapVid(), _tell)
    count = len(results) // len(methods)
    print(f"\n{data}, {count} clip{'' if count == 1 else 's'}\n")
    print("\n".join(table(summarise(results, next(iter(methods))))), flush=True)


def run(given: Given, asked: str, data: Sequence[str]) -> None:
    """Print a table for each data set, and which rows were not run.

    Raises:
        VditrackError: a row cannot be made, or a data set cannot be read.

    """
    require_flow_tracking(given.bundle)
    names = rows_of(asked, given.weights)
    methods = {name: TrackerMethod(ROWS[name](given)) for name in names}
    for each in data:
        compared(each, methods, given.clips)
    if asked == ALL and given.weights is None:
        print(f"\nNot run, for want of --weights: {', '.join(NEED_WEIGHTS)}")


def main(
    row: Annotated[str, typer.Argument(help=f"One of {', '.join(ROWS)}, or {ALL}.")],
    data: Annotated[list[str] | None, typer.Argument(help="As `vditrack eval` takes it.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the checkpoint.")] = None,
    card: Annotated[str, typer.Option(help="Name or path of the checkpoint's card.")] = "tiny",
    bundle: Annotated[Path | None, typer.Option(help="In the bundled model's place.")] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Only the first of each data set.")
    ] = None,
) -> None:
    """Print how well the tracker does with a part of it changed or left out."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            loaded = load_bundle(bundle or bundled_model())
            given = Given(loaded, card, weights, Path(scratch), clips)
            run(given, row, data or ["synthetic:0"])
        except VditrackError as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    typer.run(main)
