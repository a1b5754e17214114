"""Attention on a CPU: what ONNX Runtime's fused kernel saves in time and in memory.

    python benchmarks/attention.py              # the shapes of the bundled model
    python benchmarks/attention.py CARD         # those of another card

A card's transformer is exported with random weights for three windows. In its graph, attention is a
node beside a function that says in ONNX's operators what it does. ONNX Runtime has a kernel for the
node; where the function is put in its place, the logits of all tokens with all tokens are there at
once.
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
import torch
import typer
from onnx.inliner import inline_local_functions

from matching import resident
from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.inference.session import Array
from vditrack_export.card import Card, load_card
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.empty_prompt import random_prompt
from vditrack_export.pipeline.export import Cutting
from vditrack_export.pipeline.onnx_export import export_graph

WINDOWS = ((2, 1), (8, 1), (8, 8))
"""Frames, and how many of them are described: earlier ones ask for nothing in the last block."""
ROUNDS = 7
"""In each of which every form runs once."""


def exported(card: Card, path: Path) -> None:
    """Write the transformer's graph with random weights."""
    denoiser = card.family.denoiser
    channels = denoiser.channels(card.feature)
    cutting = Cutting(card, random_checkpoint(card), random_prompt(card), channels, random=True)
    shape, model = cutting.latent_shape(card.input), cutting.checkpoint.transformer
    module = denoiser.path(model, shape, cutting.cut(card.input), cutting.denoising, cutting.prompt)
    examples = {"latents": torch.zeros(1, *shape)}
    export_graph(module.eval(), examples, path, outputs=("descriptors",))


def plain(graph: Path, path: Path) -> None:
    """Write a graph with its functions in the place of their nodes."""
    onnx.save(inline_local_functions(onnx.load(graph)), path)


def compared(card: Card, folder: Path) -> None:
    """Print time, memory and descriptors of the exported graph and of the plain one."""
    forms = {form: folder / f"{form}.onnx" for form in ("plain", "fused")}
    exported(card, forms["fused"])
    plain(forms["fused"], forms["plain"])
    sessions = {form: OnnxRuntimeSession(path) for form, path in forms.items()}
    given = _latents(sessions["plain"])
    found = {form: session.run(given)["descriptors"] for form, session in sessions.items()}
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(ROUNDS):
        for form, session in sessions.items():
            began = time.perf_counter()
            session.run(given)
            taken[form].append(1000 * (time.perf_counter() - began))
    peaks = {form: _apart(path) for form, path in forms.items()}
    exact, size = found["plain"], card.input
    tokens = card.input.latents * exact.shape[1] * exact.shape[2]
    print(f"window of {size.frames} frames, {tokens} tokens; {size.described_frames} described")
    for form in forms:
        ratio = np.median(np.array(taken[form]) / np.array(taken["plain"]))
        share = peaks[form] / peaks["plain"]
        error = np.abs(found[form] - exact).max() / np.abs(exact).max()
        print(
            f"  {form:8}{np.median(taken[form]):8.0f} ms ({ratio:.2f})"
            f"{peaks[form]:8.0f} MiB ({share:.2f})   differs by {error:.0e}",
            flush=True,
        )


def _latents(session: OnnxRuntimeSession) -> dict[str, Array]:
    shape = session.inputs["latents"].shape
    return {"latents": np.random.default_rng(0).standard_normal(shape, np.float32)}


def _apart(graph: Path) -> float:
    """Memory that the first run of a graph adds, in MiB, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (graph,))


def _peak(graph: Path) -> float:
    session = OnnxRuntimeSession(graph)
    given = _latents(session)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    session.run(given)
    return resident("VmHWM") - before


def main(card: Annotated[str, typer.Argument(help="Name of a model card.")] = "tiny") -> None:
    """Compare fused attention with the plain one on this machine's CPU."""
    machine, own = read_machine(), load_card(card)
    print(f"{machine.cpu}, {machine.cores} cores; ONNX Runtime {onnxruntime.__version__}")
    if warning := format_load_warning(machine, read_load_average()):
        print(warning)
    for frames, described in WINDOWS:
        size = msgspec.structs.replace(own.input, frames=frames, described_frames=described)
        with tempfile.TemporaryDirectory() as folder:
            compared(msgspec.structs.replace(own, input=size), Path(folder))


if __name__ == "__main__":
    typer.run(main)
