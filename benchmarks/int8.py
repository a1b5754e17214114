"""INT8 on a CPU: time and size saved, and the effect on descriptors and tracks.

    python benchmarks/int8.py             # the bundled model
    python benchmarks/int8.py BUNDLE      # another bundle, in FP32

ONNX Runtime's quantiser writes the graphs to a temporary folder. Dynamic: weights are INT8, and
activations are rounded by their range in each run. Static: the ranges are measured on rendered
clips, other than those that are tracked here. Weights have 7 bits, because an x86 CPU without VNNI
sums products of 8 bits in 16 bits and saturates ("Quantize ONNX models", ONNX Runtime). The
products within attention, norms and softmax stay in FP32. The tracked clips are those that an
export compares precisions on, tracked by descriptor matching alone.
"""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import typer
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from vditrack.acceptance import (
    MAX_MOVE,
    acceptance_frames,
    make_acceptance_clips,
    median_move,
    track_acceptance_clips,
)
from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.bundle.folder import ENCODER, FEATURES, Bundle, bundled_model, load_bundle
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import causal_features
from vditrack.inference.onnxruntime import CPU, _options, open_session
from vditrack.inference.session import Array, ArraySession, Session
from vditrack.synthetic.layers.clips import SyntheticClip, render_clip
from vditrack_export.pipeline.acceptance import MAX_LOSS, ScoredTracks

CALIBRATION = range(1000, 1004)
"""The seeds of the clips on which ranges are measured; those of the tracked clips begin at 0."""
ROUNDS = 40
"""The number of rounds; every graph runs once in each."""
THREADS = (1, 2)

Forms = dict[str, dict[str, Path]]
"""The graphs by their name in the bundle, and by "fp32", "dynamic" or "static"."""
Inputs = list[Mapping[str, Array]]
"""The inputs of a graph, run by run."""


@dataclass(frozen=True)
class Row:
    """One way to run the bundle: the form of each graph."""

    title: str
    encoder: str
    transformer: str

    def form(self, name: str) -> str:
        """Return the form of a graph."""
        return self.transformer if name == FEATURES else self.encoder


ROWS = (
    Row("FP32", "fp32", "fp32"),
    Row("dynamic transformer", "fp32", "dynamic"),
    Row("static transformer", "fp32", "static"),
    Row("static encoder", "static", "fp32"),
    Row("static encoder, dynamic transformer", "static", "dynamic"),
    Row("static encoder and transformer", "static", "static"),
)


@dataclass
class Recording(ArraySession):
    """A session that records its inputs and outputs."""

    session: Session
    given: Inputs = field(default_factory=list)
    found: list[Mapping[str, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = self.session.inputs, self.session.outputs

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once and record the run."""
        outputs = self.session.run(inputs)
        self.given.append(dict(inputs))
        self.found.append(outputs)
        return outputs


class Calibration(CalibrationDataReader):
    """Passes recorded inputs of a graph to the quantiser."""

    def __init__(self, given: Inputs) -> None:
        self._remaining = iter(given)

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the inputs of the next run, or None after the last."""
        return next(self._remaining, None)


@dataclass(frozen=True)
class TrackingResult:
    """Tracks of the clips and the descriptors that they were matched by."""

    tracks: ScoredTracks
    descriptors: Array


def record_inputs(bundle: Bundle) -> dict[str, Inputs]:
    """Return the inputs of each graph while the clips for calibration are streamed."""
    recordings: dict[str, Recording] = {}

    def open_graph(graph: Path) -> Session:
        return recordings.setdefault(graph.name, Recording(open_session(graph)))

    extractor, size = FeatureExtractor(bundle, open_graph), bundle.manifest.input
    for seed in CALIBRATION:
        clip = render_clip(seed, size.height, size.width, acceptance_frames(size))
        for _ in causal_features(extractor, clip.frames):
            pass
    return {name: recording.given for name, recording in recordings.items()}


def quantise_graphs(bundle: Bundle, given: Mapping[str, Inputs], folder: Path) -> Forms:
    """Write the quantised forms of every graph."""
    forms: Forms = {}
    for name in given:
        paths = {form: folder / f"{form}-{name}" for form in ("prepared", "dynamic", "static")}
        forms[name] = {"fp32": bundle.root / name, "static": paths["static"]}
        # All shapes are static, so symbolic shape inference is not needed.
        quant_pre_process(forms[name]["fp32"], paths["prepared"], skip_symbolic_shape=True)
        if name == FEATURES:
            forms[name]["dynamic"] = paths["dynamic"]
            _quantise_dynamically(paths["prepared"], paths["dynamic"])
        _quantise_statically(paths["prepared"], paths["static"], name, given[name])
    return forms


def _quantise_dynamically(graph: Path, destination: Path) -> None:
    quantize_dynamic(
        graph,
        destination,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _quantise_statically(graph: Path, destination: Path, name: str, given: Inputs) -> None:
    quantize_static(
        graph,
        destination,
        Calibration(given),
        op_types_to_quantize=["MatMul", "Gemm"] if name == FEATURES else ["Conv"],
        nodes_to_exclude=_list_attention_products(graph),
        per_channel=True,
        reduce_range=True,
        # With signed activations ONNX Runtime leaves most convolutions on x86 in FP32.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _list_attention_products(path: Path) -> list[str]:
    """Return the names of the products of two activations."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    products = (node for node in graph.node if node.op_type == "MatMul")
    return [node.name for node in products if weights.isdisjoint(node.input)]


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


def time_forms(
    forms: Mapping[str, Path], given: Mapping[str, Array], threads: int
) -> dict[str, list[float]]:
    """Return the milliseconds of every form of a graph, round by round."""
    sessions = {form: _open_session(graph, threads) for form, graph in forms.items()}
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(1 + ROUNDS):
        for form, session in sessions.items():
            began = time.perf_counter()
            session.run(None, dict(given))
            # The first run allocates.
            if turn:
                taken[form].append(1000 * (time.perf_counter() - began))
    return taken


def _open_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = _options(onnxruntime)
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(graph), options, providers=[CPU])


def measure(bundle: Bundle, folder: Path) -> None:
    """Print time, size and effect of every row."""
    given = record_inputs(bundle)
    with _silence_warnings():
        forms = quantise_graphs(bundle, given, folder)
    graphs = [{name: forms[name][row.form(name)] for name in forms} for row in ROWS]
    clips = make_acceptance_clips(bundle.manifest.input)
    results = [track_clips(bundle, chosen, clips) for chosen in graphs]
    columns = [(threads, name) for threads in THREADS for name in (ENCODER, FEATURES)]
    taken = [time_forms(forms[name], given[name][-1], threads) for threads, name in columns]
    frames = {
        ENCODER: bundle.manifest.encoder.frames,
        FEATURES: bundle.manifest.input.described_frames,
    }
    _print_headings()
    for row, chosen, result in zip(ROWS, graphs, results, strict=True):
        cells = "".join(
            _format_time(measured, row.form(name), frames[name])
            for (_, name), measured in zip(columns, taken, strict=True)
        )
        size = sum(graph.stat().st_size for graph in chosen.values()) / 1e6
        print(f"{row.title:36}{size:6.2f}{cells}{_format_effect(results[0], result)}")
    print(f"an export accepts moves up to {MAX_MOVE} and an AJ up to {MAX_LOSS} lower")


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silence the quantiser's advice to prepare graphs, which are prepared."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _print_headings() -> None:
    threads = "".join(
        f"{count} thread{'s' * (count > 1)}, ms a frame".center(32) for count in THREADS
    )
    print(f"{'':42}{threads}")
    names = f"{'encoder':>16}{'transformer':>16}" * len(THREADS)
    print(f"{'':36}{'MB':>6}{names}{'error':>8}{'move':>7}{'AJ':>7}")


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
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle in FP32.")] = None,
) -> None:
    """Compare INT8 with FP32 on this machine's CPU."""
    machine = read_machine()
    print(f"{machine.cpu}, {machine.cores} cores; ONNX Runtime {onnxruntime.__version__}")
    if warning := format_load_warning(machine, read_load_average()):
        print(warning)
    with tempfile.TemporaryDirectory() as folder:
        measure(load_bundle(bundle or bundled_model()), Path(folder))


if __name__ == "__main__":
    typer.run(main)
