"""INT8 on a CPU: time and size saved, and the effect on descriptors and tracks.

    python benchmarks/int8.py             # the bundled model
    python benchmarks/int8.py BUNDLE      # another bundle with INT8 graphs (`vditrack quantize`)

Each graph runs in FP32 and in INT8 in turn, on the inputs of a stream. Times on one thread are
those of the CPU, which other work on the machine changes little. The tracked clips are those that
an export compares precisions on, tracked by descriptor matching alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer

from vditrack.acceptance import (
    MAX_MOVE,
    make_acceptance_clips,
    median_move,
    track_acceptance_clips,
)
from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.bundle.folder import (
    ENCODER,
    FEATURES,
    INT8_GRAPHS,
    Bundle,
    bundled_model,
    load_bundle,
)
from vditrack.errors import InputError
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import Array, ArraySession, Session
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.int8.calibration import Inputs, record_inputs
from vditrack_export.pipeline.acceptance import MAX_LOSS, ScoredTracks

ROUNDS = 40
"""The number of rounds; every graph runs once in each."""
THREADS = (1, 2)
ROWS = {
    "FP32": (),
    "INT8 encoder": (ENCODER,),
    "INT8 transformer": (FEATURES,),
    "INT8 encoder and transformer": (ENCODER, FEATURES),
}
"""The graphs that are in INT8, by the title of the row."""


@dataclass
class Recording(ArraySession):
    """A session that records its inputs and outputs."""

    session: Session
    given: list[Mapping[str, Array]] = field(default_factory=list)
    found: list[Mapping[str, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = self.session.inputs, self.session.outputs

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once and record the run."""
        outputs = self.session.run(inputs)
        self.given.append(dict(inputs))
        self.found.append(outputs)
        return outputs


@dataclass(frozen=True)
class TrackingResult:
    """Tracks of the clips and the descriptors that they were matched by."""

    tracks: ScoredTracks
    descriptors: Array


def track_clips(
    bundle: Bundle, graphs: Mapping[str, Path], clips: Sequence[SyntheticClip]
) -> TrackingResult:
    """Track the clips by descriptor matching alone."""
    sessions = {name: Recording(open_session(graph)) for name, graph in graphs.items()}
    followed = track_acceptance_clips(bundle, lambda graph: sessions[graph.name], clips)
    tracks = ScoredTracks(
        size=bundle.manifest.input,
        found=followed.points,
        visible=followed.visible,
        truth=np.concatenate([clip.points for clip in clips]),
        truly_visible=np.concatenate([clip.visible for clip in clips]),
    )
    return TrackingResult(
        tracks, np.stack([run["descriptors"] for run in sessions[FEATURES].found])
    )


def time_forms(forms: Mapping[str, Path], given: Inputs, threads: int) -> dict[str, list[float]]:
    """Return the milliseconds of every form of a graph, round by round."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    sessions = {form: open_session(graph, threads) for form, graph in forms.items()}
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(1 + ROUNDS):
        inputs = given[turn % len(given)]
        for form, session in sessions.items():
            began = clock()
            session.run(inputs)
            # The first run allocates.
            if turn:
                taken[form].append(1000 * (clock() - began))
    return taken


def measure(bundle: Bundle) -> None:
    """Print time, size and effect of every row."""
    if bundle.manifest.int8 is None:
        raise InputError(f"{bundle.root} has no INT8 graphs. Write them with `vditrack quantize`.")
    forms = {
        name: {"fp32": bundle.root / name, "int8": bundle.root / other}
        for name, other in INT8_GRAPHS.items()
    }
    given, clips = record_inputs(bundle), make_acceptance_clips(bundle.manifest.input)
    columns = [(threads, name) for threads in THREADS for name in INT8_GRAPHS]
    taken = [time_forms(forms[name], given[name], threads) for threads, name in columns]
    frames = {
        ENCODER: bundle.manifest.encoder.frames,
        FEATURES: bundle.manifest.input.described_frames,
    }
    _print_headings()
    exact: TrackingResult | None = None
    for title, rounded in ROWS.items():
        form = {name: "int8" if name in rounded else "fp32" for name in forms}
        graphs = {name: forms[name][form[name]] for name in forms}
        result = track_clips(bundle, graphs, clips)
        exact = exact or result
        cells = "".join(
            _format_time(measured, form[name], frames[name])
            for (_, name), measured in zip(columns, taken, strict=True)
        )
        size = sum(graph.stat().st_size for graph in graphs.values()) / 1e6
        print(f"{title:30}{size:6.2f}{cells}{_format_effect(exact, result)}")
    print(f"quantize accepts moves up to {MAX_MOVE} and an AJ up to {MAX_LOSS} lower")


def _print_headings() -> None:
    threads = "".join(
        f"{count} thread{'s' * (count > 1)}, ms a frame".center(32) for count in THREADS
    )
    print(f"{'':36}{threads}")
    names = f"{'encoder':>16}{'transformer':>16}" * len(THREADS)
    print(f"{'':30}{'MB':>6}{names}{'error':>8}{'move':>7}{'AJ':>7}")


def _format_time(taken: Mapping[str, list[float]], form: str, frames: int) -> str:
    """Return the median time and the median of its ratios to FP32 in the same round."""
    ratio = np.median(np.array(taken[form]) / np.array(taken["fp32"]))
    return f"{np.median(taken[form]) / frames:9.1f} ({ratio:.2f})"


def _format_effect(exact: TrackingResult, rounded: TrackingResult) -> str:
    """Return the relative error of descriptors, the median move in pixels and average Jaccard."""
    error = np.linalg.norm(rounded.descriptors - exact.descriptors)
    relative = error / np.linalg.norm(exact.descriptors)
    before, after = exact.tracks, rounded.tracks
    move = median_move(before.followed, after.followed, before.size)
    return f"{relative:8.4f}{move:7.2f}{after.average_jaccard():7.2f}"


def main(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder of a bundle with INT8 graphs.")
    ] = None,
) -> None:
    """Compare INT8 with FP32 on this machine's CPU."""
    machine = read_machine()
    print(f"{machine.cpu}, {machine.cores} cores; ONNX Runtime {onnxruntime.__version__}")
    if warning := format_load_warning(machine, read_load_average()):
        print(warning)
    measure(load_bundle(bundle or bundled_model()))


if __name__ == "__main__":
    typer.run(main)
