"""Steps with cached keys and values equal one pass over the whole clip, for all families with them.

The truth is the unmodified model of diffusers, run once with a band of attention, and caught by
hooks of these tests' own.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from doubles.small_families import STEP, SmallFamily, relative_difference, transformer_shapes
from vditrack_export.families.read_spec import Cut, TensorName
from vditrack_export.families.step_path import StepPath
from vditrack_export.pipeline.onnx_export import export_graph

STEPPING = [tag for tag, shape in transformer_shapes().items() if shape.attentions != ("window",)]
SIDES, WINDOW = (4, 6), 6
Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@cache
def small_family(family: str) -> SmallFamily:
    return SmallFamily(family)


def make_clip(family: SmallFamily, latents: int) -> Tensor:
    shape = (1, family.shape.in_channels, latents, *SIDES)
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def run_steps(step: StepPath, run: Run, clip: Tensor) -> dict[str, Tensor]:
    """Run a clip chunk by chunk; return each output's chunks one after the other."""
    rings = {name: x.clone() for name, x in step.examples.items() if name.startswith("cache")}
    places = torch.full((step.slots,), -1, dtype=torch.int32)
    outputs: list[dict[str, Tensor]] = []
    for index, chunk in enumerate(clip.split(step.chunk, 2)):
        outputs.append(run({"latents": chunk, "places": places, **rings}))
        first = index * step.chunk % step.slots
        for name, ring in rings.items():
            ring[first : first + step.chunk] = outputs[-1][f"slot_{name}"]
        following = first + step.chunk
        slots = torch.arange(step.slots)
        filled = slots < (index + 1) * step.chunk
        places = torch.where(filled, (slots - following) % step.slots, -1).int()
    return {name: torch.cat([each[name] for each in outputs]) for name in outputs[0]}


def in_torch(step: StepPath) -> Run:
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(step.outputs, step(*inputs.values()), strict=True))

    return run


def check_every_block(family: SmallFamily, step: StepPath, run: Run, clip: Tensor) -> None:
    """Compare hidden states after the last block, and what each block caches, at every latent."""
    inside, limit = family.inside_clip(clip, step.chunk, WINDOW), family.denoiser.step_error
    found, blocks = run_steps(step, run, clip), step.path.whole
    read = found["descriptors"].flatten(0, 2)
    assert relative_difference(read, inside["hidden", True][blocks - 1].flatten(1)) <= limit
    for block in range(blocks):
        keys = found[f"slot_cache.{2 * block}"].flatten(0, 1)
        assert relative_difference(keys, inside["keys", False][block].flatten(1)) <= limit, block


def hidden_after(family: SmallFamily, blocks: int, chunk: int) -> StepPath:
    shape = family.shape
    heads, channels = tuple(range(shape.heads)), tuple(range(shape.head_dim))
    cut = Cut(blocks - 1, heads, channels, chunk, "hidden")
    return family.step_path(cut, WINDOW, SIDES)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("tag", STEPPING)
def test_steps_are_one_pass_over_the_clip(tag: str, chunk: int) -> None:
    """In every block, also after the window has rolled."""
    family = small_family(tag)
    step = hidden_after(family, family.shape.layers, chunk)
    check_every_block(family, step, in_torch(step), make_clip(family, 4 * WINDOW))


@pytest.mark.parametrize(("chunk", "latents", "blocks"), [(1, 60, 4), (3, 24, 1)])
def test_the_graph_is_one_pass_over_the_clip(
    tmp_path: Path, chunk: int, latents: int, blocks: int
) -> None:
    """In ONNX Runtime, after the window has rolled many times."""
    family = small_family("wan_causal")
    step = hidden_after(family, blocks, chunk)
    export_graph(step, step.examples, tmp_path / "step.onnx", outputs=step.outputs)
    session = ort.InferenceSession(tmp_path / "step.onnx")

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = session.run(step.outputs, {name: x.numpy() for name, x in inputs.items()})
        return {n: torch.from_numpy(x) for n, x in zip(step.outputs, outputs, strict=True)}

    check_every_block(family, step, run, make_clip(family, latents))


@pytest.mark.parametrize("tag", STEPPING)
@pytest.mark.parametrize("tensor", ["keys", "queries", "hidden"])
def test_the_exporters_own_check_reads_the_same(tag: str, tensor: TensorName) -> None:
    """Rotated by places in a window, which do not change when the window rolls."""
    family = small_family(tag)
    cut = Cut(1, (2, 0), family.some_channels, 3, tensor)
    step, clip = family.step_path(cut, WINDOW, SIDES), make_clip(family, 12)
    found = run_steps(step, in_torch(step), clip)["descriptors"].flatten(0, 2)
    shape = (clip.shape[1], WINDOW, *SIDES)
    prompt = family.prompt(family.prompts[-1])
    read = family.denoiser.read_clip(family.model(), shape, cut, STEP, clip, prompt)
    assert relative_difference(found, read) <= family.denoiser.step_error


@pytest.mark.parametrize(("tag", "causal"), [("wan", False), ("wan_causal", True)])
def test_a_causal_model_never_reads_later_latents(tag: str, causal: bool) -> None:
    """Also where no step is involved, as in `select`."""
    family = small_family(tag)
    clip, prompt = make_clip(family, 4), family.prompt(family.prompts[-1])
    changed = clip.clone()
    changed[:, :, 3] += 1
    cut = Cut(2, (0,), family.some_channels, 4)
    before, after = (
        family.denoiser.read_whole(family.model(), cut, STEP, latents, prompt).unflatten(0, (4, -1))
        for latents in (clip, changed)
    )
    assert torch.equal(before[:3], after[:3]) == causal
    assert not torch.equal(before[3], after[3])
