"""INT8 on a CPU: what it saves in time and on disk, and what it does to descriptors and tracks.

    python benchmarks/int8.py             # the bundled model
    python benchmarks/int8.py BUNDLE      # another one, in FP32

ONNX Runtime's quantiser makes the graphs in a temporary folder. Dynamic: weights in INT8, and what
they are multiplied with by the range that it has in each run. Static: ranges are those seen in
rendered clips, which are not the clips that are tracked here. Weights keep to 7 bits, since an x86
without VNNI adds products of 8 up in 16 bits and saturates ("Quantize ONNX models", ONNX Runtime);
attention's own products, norms and softmax stay in FP32. Tracks are those of the export's gate: its
clips, by their matches alone.
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
from vditrack.inference.session import Array, Session
from vditrack.synthetic.layers.clips import SyntheticClip, make_clip
from vditrack_export.pipeline.acceptance import MAX_LOSS, GateTracks

CALIBRATION = range(1000, 1004)
"""Seeds of the clips that ranges are taken from; the gate's begin at 0."""
ROUNDS = 40
"""In each of which every graph runs once."""
THREADS = (1, 2)

Forms = dict[str, dict[str, Path]]
"""Graphs by their name in the bundle, and by "fp32", "dynamic" or "static"."""
Given = list[Mapping[str, Array]]
"""Inputs of a graph, run by run."""


@dataclass(frozen=True)
class Row:
    """One way to run the bundle: the forms of its graphs."""

    title: str
    encoder: str
    transformer: str

    def form(self, name: str) -> str:
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
class Recording:
    """A session that keeps what it is given and what it finds."""

    session: Session
    given: Given = field(default_factory=list)
    found: list[Mapping[str, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = self.session.inputs, self.session.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self.session.run(inputs)
        self.given.append(dict(inputs))
        self.found.append(outputs)
        return outputs


class Calibration(CalibrationDataReader):
    """Hands the quantiser what a graph was given."""

    def __init__(self, given: Given) -> None:
        self._coming = iter(given)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._coming, None)


@dataclass(frozen=True)
class Tracked:
    """Tracks of the acceptance clips, and the descriptors by which they were found."""

    tracks: GateTracks
    descriptors: Array


def recorded(bundle: Bundle) -> dict[str, Given]:
    """What each graph is given while the calibration's clips are streamed."""
    recordings: dict[str, Recording] = {}

    def open_graph(graph: Path) -> Session:
        return recordings.setdefault(graph.name, Recording(open_session(graph)))

    extractor, size = FeatureExtractor(bundle, open_graph), bundle.manifest.input
    for seed in CALIBRATION:
        clip = make_clip(seed, size.height, size.width, acceptance_frames(size))
        for _ in causal_features(extractor, clip.frames):
            pass
    return {name: recording.given for name, recording in recordings.items()}


def quantised(bundle: Bundle, given: Mapping[str, Given], folder: Path) -> Forms:
    """Write the other forms of every graph."""
    forms: Forms = {}
    for name in given:
        paths = {form: folder / f"{form}-{name}" for form in ("prepared", "dynamic", "static")}
        forms[name] = {"fp32": bundle.root / name, "static": paths["static"]}
        # Static shapes need no symbols.
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


def _quantise_statically(graph: Path, destination: Path, name: str, given: Given) -> None:
    quantize_static(
        graph,
        destination,
        Calibration(given),
        op_types_to_quantize=["MatMul", "Gemm"] if name == FEATURES else ["Conv"],
        nodes_to_exclude=_without_weights(graph),
        per_channel=True,
        reduce_range=True,
        # With signed ones ONNX Runtime leaves most convolutions on x86 in FP32.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _without_weights(path: Path) -> list[str]:
    """Attention's products: of two things that are computed."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    products = (node for node in graph.node if node.op_type == "MatMul")
    return [node.name for node in products if weights.isdisjoint(node.input)]


def tracked(bundle: Bundle, graphs: Mapping[str, Path], clips: Sequence[SyntheticClip]) -> Tracked:
    """Track the acceptance clips by their matches alone."""
    sessions = {name: Recording(open_session(graph)) for name, graph in graphs.items()}
    followed = track_acceptance_clips(bundle, lambda graph: sessions[graph.name], clips)
    tracks = GateTracks(
        size=bundle.manifest.input,
        found=followed.points,
        visible=followed.visible,
        truth=np.concatenate([clip.points for clip in clips]),
        truly_visible=np.concatenate([clip.visible for clip in clips]),
    )
    return Tracked(tracks, np.stack([run["descriptors"] for run in sessions[FEATURES].found]))


def times(
    forms: Mapping[str, Path], given: Mapping[str, Array], threads: int
) -> dict[str, list[float]]:
    """Milliseconds of every form of a graph, round by round."""
    sessions = {form: _session(graph, threads) for form, graph in forms.items()}
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(1 + ROUNDS):
        for form, session in sessions.items():
            began = time.perf_counter()
            session.run(None, dict(given))
            # The first run allocates.
            if turn:
                taken[form].append(1000 * (time.perf_counter() - began))
    return taken


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = _options(onnxruntime)
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(graph), options, providers=[CPU])


def measure(bundle: Bundle, folder: Path) -> None:
    """Print what every row takes and does."""
    given = recorded(bundle)
    with _quietly():
        forms = quantised(bundle, given, folder)
    graphs = [{name: forms[name][row.form(name)] for name in forms} for row in ROWS]
    clips = make_acceptance_clips(bundle.manifest.input)
    results = [tracked(bundle, chosen, clips) for chosen in graphs]
    columns = [(threads, name) for threads in THREADS for name in (ENCODER, FEATURES)]
    taken = [times(forms[name], given[name][-1], threads) for threads, name in columns]
    frames = {
        ENCODER: bundle.manifest.encoder.frames,
        FEATURES: bundle.manifest.input.described_frames,
    }
    _print_head()
    for row, chosen, result in zip(ROWS, graphs, results, strict=True):
        cells = "".join(
            _time(measured, row.form(name), frames[name])
            for (_, name), measured in zip(columns, taken, strict=True)
        )
        size = sum(graph.stat().st_size for graph in chosen.values()) / 1e6
        print(f"{row.title:36}{size:6.2f}{cells}{_effect(results[0], result)}")
    print(f"the export's gate takes moves up to {MAX_MOVE}, and an AJ up to {MAX_LOSS} lower")


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop the quantiser's advice to prepare a graph, which it was."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _print_head() -> None:
    threads = "".join(
        f"{count} thread{'s' * (count > 1)}, ms a frame".center(32) for count in THREADS
    )
    print(f"{'':42}{threads}")
    names = f"{'encoder':>16}{'transformer':>16}" * len(THREADS)
    print(f"{'':36}{'MB':>6}{names}{'error':>8}{'move':>7}{'AJ':>7}")


def _time(taken: Mapping[str, list[float]], form: str, frames: int) -> str:
    """Median time, and the median of its ratios to FP32 in the same round."""
    ratio = np.median(np.array(taken[form]) / np.array(taken["fp32"]))
    return f"{np.median(taken[form]) / frames:9.1f} ({ratio:.2f})"


def _effect(exact: Tracked, rounded: Tracked) -> str:
    """Descriptors' relative error, pixels by which the median point moved, Average Jaccard."""
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
