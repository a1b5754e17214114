"""Export of a full-size backbone with random weights, and one window against the whole model.

    python benchmarks/full_size.py wan2.1-t2v-1.3b --size 576x320 --frames 17

First the card is exported with random weights at its own size, with its encoder. Then it is
exported for a window that a workstation without a GPU can hold, and the truncated transformer in
ONNX Runtime is timed against one step of the whole transformer in diffusers, on the same latents
and with the same weights. Each measurement runs in a process of its own, whose peak memory is
measured.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import typer

from vditrack.bundle.folder import load_bundle
from vditrack_export.card import Card, load_card
from vditrack_export.plan.pipeline import transformer_share

ALLOWANCE = 1.15
"""The largest ratio of the truncated path's share of time to its share of operations."""
REPEATS = 3


def main(
    card: Annotated[str, typer.Argument(help="Name of a model card.")],
    size: Annotated[
        str, typer.Option(help="Size of the window that is run, as WIDTHxHEIGHT.")
    ] = "576x320",
    frames: Annotated[int, typer.Option(help="Number of frames of the window that is run.")] = 17,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(help="Precision of the export at the card's own size."),
    ] = "fp32",
    temporal_stride: Annotated[int, typer.Option(help="Number of frames that share a latent.")] = 4,
) -> None:
    """Print time and memory of the export, of the truncated path and of the whole transformer."""
    own = _replace_input(load_card(card), temporal_stride=temporal_stride)
    width, height = (int(side) for side in size.split("x"))
    run = _replace_input(own, height=height, width=width, frames=frames, described_frames=frames)
    with tempfile.TemporaryDirectory() as scratch:
        exported = _run_in_process(_export, own, Path(scratch) / "own", precision)
        _print_measurement(f"export in {precision}", own, exported)
        print(f"  parity: {exported['parity']}")
    with tempfile.TemporaryDirectory() as scratch:
        small, latents = Path(scratch) / "run", Path(scratch) / "latents.npy"
        _print_measurement("export in fp32", run, _run_in_process(_export, run, small, "fp32"))
        truncated = _run_in_process(_run_truncated, small, latents)
        whole = _run_in_process(_run_whole, run, latents)
        error = np.abs(truncated["descriptors"] - whole["descriptors"]).max()
    share = transformer_share(run)
    ratio = truncated["seconds"] / whole["seconds"]
    _print_measurement("truncated, ONNX Runtime", run, truncated)
    _print_measurement("one step of the whole, diffusers", run, whole)
    print(f"  descriptors differ by {error / np.abs(whole['descriptors']).max():.1e}")
    print(
        f"  time {ratio:.3f} of the whole, operations {share:.3f}, "
        f"so {ratio / share:.2f} times its share (at most {ALLOWANCE})"
    )


def _replace_input(card: Card, **changes: int) -> Card:
    return msgspec.structs.replace(card, input=msgspec.structs.replace(card.input, **changes))


def _print_measurement(name: str, card: Card, measured: dict[str, Any]) -> None:
    window = f"{card.input.width} x {card.input.height} x {card.input.frames}"
    size = f", {measured['bytes'] / 1e9:.2f} GB" if "bytes" in measured else ""
    print(
        f"{card.name} at {window}, {name}: {measured['seconds']:.1f} s, peak "
        f"{measured['peak'] / 1e9:.1f} GB{size}",
        flush=True,
    )


def _run_in_process(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Run a function in a new process and add the process's peak memory, in bytes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_add_peak, (work, *arguments))


def _add_peak(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    measured = work(*arguments)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return measured | {"peak": kibibytes * 1024}


def _export(
    card: Card, destination: Path, precision: Literal["fp32", "fp16", "bf16"]
) -> dict[str, Any]:
    began = time.perf_counter()
    from vditrack_export.checkpoints.sources import Weights  # noqa: PLC0415
    from vditrack_export.pipeline.export import export_bundle  # noqa: PLC0415
    from vditrack_export.pipeline.precision import choose_precision  # noqa: PLC0415
    from vditrack_export.pipeline.verified_graphs import Rounding  # noqa: PLC0415

    rounding = Rounding(choose_precision(precision))
    bundle = export_bundle(card, Weights(folder=None), destination, print, rounding)
    return {
        "seconds": time.perf_counter() - began,
        "bytes": sum(record.size for record in bundle.manifest.files.values()),
        "parity": bundle.manifest.parity,
    }


def _run_truncated(folder: Path, latents: Path) -> dict[str, Any]:
    from vditrack.inference.onnxruntime import OnnxRuntimeSession  # noqa: PLC0415

    session = OnnxRuntimeSession(load_bundle(folder).features)
    shape = session.inputs["latents"].shape
    given = np.random.default_rng(0).standard_normal(shape, np.float32)
    np.save(latents, given)
    seconds, outputs = _time_runs(lambda: session.run({"latents": given}))
    return {"seconds": seconds, "descriptors": outputs["descriptors"].reshape(-1)}


def _run_whole(card: Card, latents: Path) -> dict[str, Any]:
    """Run all blocks; random weights are drawn in order, so the first ones are the bundle's."""
    import torch  # noqa: PLC0415

    from vditrack_export.pipeline.backbone import Backbone  # noqa: PLC0415
    from vditrack_export.pipeline.checkpoint import random_checkpoint  # noqa: PLC0415
    from vditrack_export.pipeline.empty_prompt import random_prompt  # noqa: PLC0415

    last = msgspec.structs.replace(card.feature, block=card.transformer.layers - 1)
    checkpoint = random_checkpoint(msgspec.structs.replace(card, feature=last))
    backbone = Backbone(card, checkpoint, random_prompt(card), random=True)
    given, cut = torch.from_numpy(np.load(latents)), backbone.cut(card.input)
    read_whole = card.family.denoiser.read_whole
    seconds, read = _time_runs(
        lambda: read_whole(checkpoint.transformer, cut, backbone.denoising, given, backbone.prompt)
    )
    return {"seconds": seconds, "descriptors": read.numpy().reshape(-1)}


def _time_runs(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest time of several runs and the last run's result."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


if __name__ == "__main__":
    typer.run(main)
