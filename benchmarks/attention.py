"""Time and memory that ONNX Runtime's fused attention kernel saves on a CPU.

    python benchmarks/attention.py              # the shapes of the bundled model
    python benchmarks/attention.py CARD         # those of another card

A card's transformer is exported with random weights for three windows. Attention is one node of the
graph, with a function that defines it in ONNX's own operators. ONNX Runtime has a kernel for the
node. If the function is inlined instead, all tokens x tokens logits are in memory at once.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import onnx
import onnxruntime
import typer
from onnx.inliner import inline_local_functions

from matching import resident
from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.inference.session import Array
from vditrack_export.card import Card, load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.backbone import load_backbone
from vditrack_export.pipeline.onnx_export import export_graph

WINDOWS = ((2, 1), (8, 1), (8, 8))
"""The numbers of frames and of described frames; the others are context in the last block."""
ROUNDS = 7
"""The number of rounds; every form runs once in each."""


def export_transformer(card: Card, path: Path) -> None:
    """Write the transformer's graph with random weights."""
    graph = load_backbone(card, Weights(folder=None)).feature_graph(card.input)
    export_graph(graph.module, graph.examples, path, outputs=graph.outputs)


def inline_functions(graph: Path, path: Path) -> None:
    """Write a graph with its functions inlined."""
    onnx.save(inline_local_functions(onnx.load(graph)), path)


def compare_forms(card: Card, folder: Path) -> None:
    """Print time and memory of the exported and the inlined graph, and how their outputs differ."""
    forms = {form: folder / f"{form}.onnx" for form in ("plain", "fused")}
    export_transformer(card, forms["fused"])
    inline_functions(forms["fused"], forms["plain"])
    sessions = {form: OnnxRuntimeSession(path) for form, path in forms.items()}
    inputs = _random_latents(sessions["plain"])
    found = {form: session.run(inputs)["descriptors"] for form, session in sessions.items()}
    times: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(ROUNDS):
        for form, session in sessions.items():
            began = time.perf_counter()
            session.run(inputs)
            times[form].append(1000 * (time.perf_counter() - began))
    peaks = {form: _measure_in_process(path) for form, path in forms.items()}
    exact, size = found["plain"], card.input
    tokens = card.input.latents * exact.shape[1] * exact.shape[2]
    print(f"window of {size.frames} frames, {tokens} tokens; {size.described_frames} described")
    for form in forms:
        ratio = np.median(np.array(times[form]) / np.array(times["plain"]))
        share = peaks[form] / peaks["plain"]
        error = np.abs(found[form] - exact).max() / np.abs(exact).max()
        print(
            f"  {form:8}{np.median(times[form]):8.0f} ms ({ratio:.2f})"
            f"{peaks[form]:8.0f} MiB ({share:.2f})   differs by {error:.0e}",
            flush=True,
        )


def _random_latents(session: OnnxRuntimeSession) -> dict[str, Array]:
    shape = session.inputs["latents"].shape
    return {"latents": np.random.default_rng(0).standard_normal(shape, np.float32)}


def _measure_in_process(graph: Path) -> float:
    """Return the memory that the first run of a graph adds in a new process, in MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (graph,))


def _measure_peak(graph: Path) -> float:
    session = OnnxRuntimeSession(graph)
    inputs = _random_latents(session)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    session.run(inputs)
    return resident("VmHWM") - before


def main(card: Annotated[str, typer.Argument(help="Name of a model card.")] = "tiny") -> None:
    """Compare fused with inlined attention on this machine's CPU."""
    machine, own = read_machine(), load_card(card)
    print(f"{machine.cpu}, {machine.cores} cores; ONNX Runtime {onnxruntime.__version__}")
    if warning := format_load_warning(machine, read_load_average()):
        print(warning)
    for frames, described in WINDOWS:
        size = msgspec.structs.replace(own.input, frames=frames, described_frames=described)
        with tempfile.TemporaryDirectory() as folder:
            compare_forms(msgspec.structs.replace(own, input=size), Path(folder))


if __name__ == "__main__":
    typer.run(main)
