"""One new latent with cached keys and values, against the window that it replaces.

    python benchmarks/cached_step.py

Wan2.1-1.3B at its full widths, read at its card's block, with random weights, in ONNX Runtime on
the CPU, and the encoders: that of the checkpoint, and TAEHV. Each graph is written by a process of
its own, whose memory is free again before they run.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import Card, load_card
from vditrack_export.card_changes import change_card, replace_encoder

CARD = "wan2.1-t2v-1.3b"
WINDOW, STEP, ENCODER, TINY_ENCODER = "window", "step", "encoder", "tiny_encoder"


def main(
    size: Annotated[str, typer.Option(help="Size of the frames, as WIDTHxHEIGHT.")] = "320x192",
    frames: Annotated[int, typer.Option(help="Frames in a window.")] = 25,
    repeats: Annotated[int, typer.Option(help="Runs of each form, twice.")] = 3,
    block: Annotated[int | None, typer.Option(help="Block that is read.")] = None,
) -> None:
    """Print the time of each form for one new latent, and how many times faster steps are."""
    card = load_card(CARD)
    cards = {
        form: change_card(
            card,
            size=size,
            frames=frames,
            described=4,
            temporal_stride=4,
            attention=attention,
            block=block,
        )
        for form, attention in ((WINDOW, "window"), (STEP, "cached"))
    }
    cards[ENCODER] = cards[WINDOW]
    cards[TINY_ENCODER] = replace_encoder(cards[WINDOW], "taehv")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for form, each in cards.items():
            _run_in_process(write_form, form, each, folder)
        seconds = time_forms(folder, cards, repeats)
    for form, taken in seconds.items():
        print(f"{form}: least {min(taken):.2f} s, median {median(taken):.2f} s")
    _print_ratio("transformer", seconds, (WINDOW,), (STEP,))
    _print_ratio("whole new latent", seconds, (WINDOW, ENCODER), (STEP, TINY_ENCODER))
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of the runs: {kibibytes * 1024 / 1e9:.1f} GB")


def _print_ratio(
    name: str, seconds: dict[str, list[float]], before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    least, middle = (
        sum(of(seconds[form]) for form in before) / sum(of(seconds[form]) for form in after)
        for of in (min, median)
    )
    print(f"{name}: {least:.1f} times faster (least), {middle:.1f} (median)")


def write_form(form: str, card: Card, folder: Path) -> None:
    """Write the graph of a form; weights are drawn in one order, so both forms have the same."""
    import torch  # noqa: PLC0415

    from vditrack_export.checkpoints.sources import Weights  # noqa: PLC0415
    from vditrack_export.pipeline.backbone import load_backbone  # noqa: PLC0415
    from vditrack_export.pipeline.onnx_export import export_graph  # noqa: PLC0415

    with torch.no_grad():
        if form in {WINDOW, STEP}:
            graph = load_backbone(card, Weights(None)).feature_graph(card.input)
        else:
            encoder = card.family.encoder
            graph = encoder.form(encoder.build_random().eval(), card.input).graphs[-1]
        path = folder / f"{form}.onnx"
        export_graph(graph.module, graph.examples, path, outputs=graph.outputs)


def time_forms(folder: Path, cards: dict[str, Card], repeats: int) -> dict[str, list[float]]:
    """Run each form, and again in the other order; return the seconds of each run by form."""
    seconds: dict[str, list[float]] = {form: [] for form in cards}
    for form in (*cards, *reversed(cards)):
        # One at a time: a transformer takes 6 GB, with its weights as ONNX Runtime rearranges them.
        run = _prepare(folder / f"{form}.onnx", cards)
        run()
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            seconds[form].append(time.perf_counter() - began)
    return seconds


def _prepare(path: Path, cards: dict[str, Card]) -> Callable[[], object]:
    """Load a graph; return a function that runs it on random numbers, with full rings."""
    session, random = OnnxRuntimeSession(path), np.random.default_rng(0)
    state, slots = session.new_state(), cards[STEP].input.cached_latents
    inputs = {}
    for name, spec in session.inputs.items():
        if name == "places":
            inputs[name] = np.arange(slots, dtype=np.int32)
        elif name == "frames":
            inputs[name] = random.integers(0, 256, spec.shape, np.uint8)
        elif not name.startswith("cache"):
            inputs[name] = random.standard_normal(spec.shape, np.float32)
    return lambda: session.run(inputs, state)


def _run_in_process(work: Callable[..., None], *arguments: object) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        pool.apply(work, arguments)


if __name__ == "__main__":
    typer.run(main)
