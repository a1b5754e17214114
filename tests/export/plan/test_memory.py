"""Peak memory: of steps by hand, and of exported graphs as ONNX Runtime runs them."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from doubles.small_cards import make_small_card
from vditrack_export.card import Card, load_card
from vditrack_export.families.cogvideox.autoencoder import CogVideoXClipEncoder
from vditrack_export.families.image_input import FramesToLatents
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.plan.costs import Cost
from vditrack_export.plan.devices import find_device
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.memory import Step, Tensor, live_peak, planned_peak
from vditrack_export.plan.meta_tensors import meta_tensor
from vditrack_export.plan.networks import build_feature_path, make_prompt, record_encoder
from vditrack_export.plan.recorder import record
from vditrack_export.plan.settings import Setting, window_input


def test_memory_by_hand():
    """From x to a to b, c in the place of b, and d from c and the a that was kept for it."""
    x, a, b, c, d = (Tensor((size,)) for size in (10, 20, 30, 30, 40))
    steps = [Step((x,), a), Step((a,), b), Step((b,), c, in_place=True), Step((c, a), d)]
    assert planned_peak(steps, [d]) == 20 + 30 + 40
    # TensorRT's x and d lie elsewhere, as do a and c if they are results.
    assert live_peak(steps, [d]) == 20 + 30
    apart = [*steps[:2], Step((b,), c), steps[3]]
    assert live_peak(apart, [d]) == 20 + 30 + 30
    assert live_peak(apart[:3], [a, c]) == 30
    # A result is not written over what it is computed from, which lies in the engine's memory.
    assert live_peak(steps[:3], [c]) == 20 + 30


def test_half_precision_takes_half_the_memory():
    x, a, b = Tensor((10,)), Tensor((20,), 2), Tensor((20,), 4)
    steps = [Step((x,), a), Step((a,), b), Step((b,), Tensor((1,)))]
    assert live_peak(steps, [steps[-1].written]) == 20 * 2 + 20 * 4


def test_a_planned_buffer_is_held_where_it_is_idle():
    """As attention's scores are, through the feed-forward network, for those of the next block."""
    x, scores, tokens, inner, again, more = (Tensor((n,)) for n in (2, 100, 2, 60, 2, 100))
    steps = [
        Step((x,), scores),
        Step((scores,), tokens),
        Step((tokens,), inner),
        Step((inner,), again),
        Step((again,), more),
    ]
    assert live_peak(steps, [more]) == 102
    assert planned_peak(steps, [more]) == 100 + 60 + 2


def test_steps_run_in_the_order_of_onnx_runtime():
    """Two batches, of which the later reads an array of the earlier: the later goes first."""
    first, second, a, b, c, d, both = (Tensor((n,)) for n in (1, 1, 50, 50, 2, 3, 5))
    steps = [
        Step((first,), a),
        Step((a,), c),
        Step((second, a), b),
        Step((b,), d),
        Step((c, d), both),
    ]
    # In the order given, c is there when b is computed; in ONNX Runtime's, a when d is.
    assert live_peak(steps, [both]) == 50 + 50 + 2
    assert planned_peak(steps, [both]) == 50 + 50 + 3
    # What no result depends on is not computed.
    more = [*steps, Step((a,), Tensor((1000,)))]
    assert (live_peak(more, [both]), planned_peak(more, [both])) == (102, 103)


PEAK = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from vditrack.inference import onnxruntime as backend

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

path, runs, arena = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "arena"
usual = backend._options
def options(onnxruntime):
    chosen = usual(onnxruntime)
    chosen.enable_cpu_mem_arena = arena
    return chosen
backend._options = options
before = resident("VmRSS")
session = backend.OnnxRuntimeSession(path)
Path("/proc/self/clear_refs").write_text("5")
((name, tensor),) = session.inputs.items()
for _ in range(runs):
    session.run({name: np.ones(tensor.shape, tensor.dtype)})
print(resident("VmHWM") - before)
"""


def peak_bytes(path: Path, runs: int, memory: str) -> int:
    """Of a process that loads and runs a graph; what it was before is taken off."""
    # Freed memory goes back at once, so that none of it is counted twice.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "200000"}
    command = [sys.executable, "-c", PEAK, str(path), str(runs), memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def changed_card(name: str, text_tokens: int, block: int = 3, **sides: object) -> Card:
    """A small card whose network is large enough that its activations can be measured."""
    card = make_small_card(name, frames=9, temporal_stride=8 if name == "ltx-video" else 1)
    shape = msgspec.structs.replace(
        card.transformer, in_channels=8, patch=(1, 1, 1), text_tokens=text_tokens, **sides
    )
    encoder = msgspec.structs.replace(card.encoder, latent_channels=8)
    feature = msgspec.structs.replace(
        card.feature, block=block, heads=(0,), frequency_range=(0.3, 0.7)
    )
    return msgspec.structs.replace(card, transformer=shape, encoder=encoder, feature=feature)


def exported(module: nn.Module, name: str, example: torch.Tensor, path: Path) -> Cost:
    export_graph(module, {name: example}, path, outputs=["result"])
    given = meta_tensor(*example.shape, dtype=example.dtype)
    return lower(record(lambda: module(given), [given], module), "attention")


def exported_transformer(card: Card, latents: tuple[int, int, int], described: int, path: Path):
    transformer, prompt = random_checkpoint(card).transformer, make_prompt(card)
    module = build_feature_path(card, transformer, latents, described, prompt)
    return exported(module, "latents", torch.zeros(1, 8, *latents), path)


def exported_tiny_encoder(path: Path):
    module = FramesToLatents(TinyEncoder(64, (32, 64), (1, 2), (128, 192))).eval()
    return exported(module, "frames", torch.zeros(24, 480, 640, 3, dtype=torch.uint8), path)


def exported_clip_encoder(path: Path):
    vae = random_checkpoint(make_small_card("cogvideox-2b", frames=1)).encoder
    module = CogVideoXClipEncoder(vae, temporal_stride=4).eval()
    return exported(module, "frames", torch.zeros(17, 160, 240, 3, dtype=torch.uint8), path)


LARGE = {"heads": 4, "head_dim": 64, "feed_forward": 1024, "layers": 4}
# As many heads and as wide a feed-forward network that attention does not stand alone.
WIDE = {"heads": 8, "head_dim": 64, "feed_forward": 2048, "layers": 4}
GRAPHS = {
    "wan": partial(
        exported_transformer, changed_card("wan2.1-t2v-1.3b", 1, **LARGE), (8, 32, 32), 1
    ),
    "wan with a prompt": partial(
        exported_transformer, changed_card("wan2.1-t2v-1.3b", 64, block=2, **WIDE), (5, 32, 32), 5
    ),
    "cogvideox": partial(
        exported_transformer, changed_card("cogvideox-5b", 64, **LARGE), (8, 32, 32), 1
    ),
    "cosmos": partial(
        exported_transformer, changed_card("cosmos-predict2-2b", 64, **LARGE), (8, 32, 32), 1
    ),
    "ltx": partial(exported_transformer, changed_card("ltx-video", 64, **LARGE), (8, 32, 32), 1),
    "hunyuan": partial(
        exported_transformer, changed_card("hunyuan-video", 64, **LARGE), (8, 32, 32), 1
    ),
    "tiny encoder": exported_tiny_encoder,
    "cogvideox encoder": exported_clip_encoder,
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", GRAPHS)
def test_memory_that_onnx_runtime_takes(tmp_path, name):
    path = tmp_path / "graph.onnx"
    cost = GRAPHS[name](path)
    assert cost.peak_bytes > 150e6
    needed = peak_bytes(path, runs=1, memory="no arena")
    assert cost.weight_bytes + cost.peak_bytes == pytest.approx(needed, rel=0.25)
    if name in ("wan", "wan with a prompt", "tiny encoder"):
        # As the project runs it, for good: what the device table says that the engine holds.
        held = peak_bytes(path, runs=3, memory="arena")
        expected = cost.weight_bytes + find_device("cpu-2-core").held * cost.peak_bytes
        assert expected == pytest.approx(held, rel=0.25)


def test_batches_need_the_memory_of_one_and_what_it_leaves():
    card = load_card("cogvideox-2b")

    def peak(frames: int, stride: int) -> int:
        size = window_input(card, Setting(480, 720, frames, stride))
        return lower(record_encoder(card, size).step, "all").peak_bytes

    assert peak(25, 4) < 1.7 * peak(9, 4)
    assert peak(25, 1) > 2.4 * peak(9, 1)
