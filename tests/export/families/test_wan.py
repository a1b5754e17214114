"""The truncated transformer gives what the unmodified diffusers model computes on the way."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vditrack.errors import InputError, VditrackError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels, wan_rotary_axes
from vditrack_export.families.wan import transformer as wan
from vditrack_export.families.wan.transformer import WanPath
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR, relative_error

LAYERS, HEADS, HEAD_DIM, LATENTS, TEXT_DIM = 4, 3, 32, 8, 16
LATENT_SHAPE = (LATENTS, 3, 8, 12)
SIGMA, TIMESTEP, SEED = 0.1, 100.0, 3
DENOISING = Denoising(TIMESTEP, 1 - SIGMA, SIGMA, SEED)
PATCHES = [(1, 1, 1), (1, 2, 2)]
CHANNELS = [4, 5, 10, 11, 16, 17, 20, 21, 30, 31]

# What can be read of a block, and whether after the rotary embedding.
READINGS = [("keys", True), ("keys", False), ("queries", True), ("queries", False)]
READINGS += [("hidden", True)]
Reading = tuple[str, bool]


@cache
def transformer(
    patch: tuple[int, int, int] = (1, 2, 2),
    layers: int = LAYERS,
    heads: int = HEADS,
    head_dim: int = HEAD_DIM,
    channels: int = LATENTS,
    cross_attn_norm: bool = True,
) -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=patch,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=4 * head_dim,
        num_layers=layers,
        cross_attn_norm=cross_attn_norm,
    ).eval()
    # Norms start as ones and zeros, and would hide a weight that is left out.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@cache
def latents(shape: LatentShape = LATENT_SHAPE) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


@cache
def prompt(tokens: int, length: int = 0) -> Tensor:
    """Of so many different tokens, padded to a length with zeros."""
    drawn = torch.randn(tokens, TEXT_DIM, generator=torch.Generator().manual_seed(2))
    return F.pad(drawn, (0, 0, 0, max(0, length - tokens)))


class _Attentions(TorchFunctionMode):
    """Keeps queries and keys [1, heads, tokens, head_dim] of every attention, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self.calls.append((kwargs["query"], kwargs["key"]))
        return function(*args, **kwargs)


def internals(
    model: WanTransformer3DModel, noised: Tensor, timestep: Tensor, context: Tensor
) -> dict[Reading, list[Tensor]]:
    """Run the whole model once; every reading of every block, [tokens, heads, head_dim]."""
    found: dict[Reading, list[Tensor]] = defaultdict(list)
    heads = model.config.num_attention_heads

    def keep(reading: Reading) -> Callable[..., None]:
        return lambda _module, _inputs, output: found[reading].append(
            output[0].unflatten(-1, (heads, -1))
        )

    with ExitStack() as stack, torch.no_grad():
        for block in model.blocks:
            for module, reading in (
                (block.attn1.norm_k, ("keys", False)),
                (block.attn1.norm_q, ("queries", False)),
                (block, ("hidden", True)),
            ):
                stack.callback(module.register_forward_hook(keep(reading)).remove)
        attentions = stack.enter_context(_Attentions())
        model(noised, timestep, context[None])
    # Self-attention and attention to the prompt take turns.
    for query, key in attentions.calls[::2]:
        found["queries", True].append(query[0].transpose(0, 1))
        found["keys", True].append(key[0].transpose(0, 1))
    return found


@cache
def caught(
    patch: tuple[int, int, int], tokens: int, length: int = 0
) -> dict[Reading, list[Tensor]]:
    noised = DENOISING.noised(latents())
    context = prompt(tokens, length)
    return internals(transformer(patch), noised, torch.tensor([TIMESTEP]), context)


def chosen(read: Tensor, heads: Sequence[int], channels: Sequence[int]) -> Tensor:
    """Of [tokens, heads, head_dim], the cut's: [tokens, D], head by head."""
    return torch.cat([read[:, head, list(channels)] for head in heads], dim=-1)


def descriptors_of(
    model: WanTransformer3DModel, cut: Cut, denoising: Denoising, clean: Tensor, context: Tensor
) -> Tensor:
    path = WanPath(model, tuple(clean.shape[1:]), cut, denoising, context).eval()
    with torch.no_grad():
        return path(clean)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def head_errors(found: Tensor, expected: Tensor) -> float:
    """The worst head's error, of [tokens, heads, head_dim] that lie head by head."""
    difference = (found.reshape(expected.shape) - expected).abs().amax((0, 2))
    return float((difference / expected.abs().amax((0, 2))).max())


def truncated(
    patch: tuple[int, int, int],
    tokens: int,
    block: int,
    heads: list[int],
    channels: list[int] = CHANNELS,
    described: int = LATENT_SHAPE[1],
    reading: Reading = ("keys", True),
    length: int = 0,
) -> WanPath:
    tensor, rotated = reading
    cut = Cut(block, tuple(heads), tuple(channels), described, tensor, rotated)
    context = prompt(tokens, length)
    return WanPath(transformer(patch), LATENT_SHAPE, cut, DENOISING, context).eval()


@pytest.mark.slow
@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_what_is_read_is_the_whole_models(
    reading: Reading, patch: tuple[int, int, int], tokens: int, block: int
) -> None:
    read = caught(patch, tokens)[reading][block]
    all_heads = [[0], [2], [2, 0], [0, 1, 2]]
    for heads, channels in product(all_heads, [CHANNELS, list(range(HEAD_DIM))]):
        with torch.no_grad():
            module = truncated(patch, tokens, block, heads, channels, reading=reading)
            descriptors = module(latents())
        grid = (3, 8 // patch[1], 12 // patch[2])
        assert descriptors.shape == (*grid, len(heads) * len(channels))
        expected = chosen(read, heads, channels)
        assert error(descriptors.flatten(0, 2), expected) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("reading", [("keys", False), ("queries", False), ("hidden", True)])
def test_without_rotation_any_channels_may_be_read(reading: Reading) -> None:
    """Also the halves of rotary pairs."""
    channels = [1, 2, 8, 31]
    with torch.no_grad():
        found = truncated(PATCHES[1], 5, 2, [1], channels, reading=reading)(latents())
    expected = chosen(caught(PATCHES[1], 5)[reading][2], [1], channels)
    assert error(found.flatten(0, 2), expected) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize("newest", [1, 2])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_the_newest_frames_alone(reading: Reading, newest: int, block: int) -> None:
    """Leaving out what earlier frames would have become changes nothing."""
    patch, tokens = PATCHES[1], 5
    with torch.no_grad():
        found = truncated(patch, tokens, block, [0, 2], described=newest, reading=reading)(
            latents()
        )
    whole = chosen(caught(patch, tokens)[reading][block], [0, 2], CHANNELS).reshape(3, 4, 6, -1)
    assert found.shape[0] == newest
    assert error(found, whole[-newest:]) <= MAX_RELATIVE_ERROR


def test_keys_lie_on_the_grid_row_by_row() -> None:
    """In block 0 nothing mixes cells: a change in one latent cell changes one descriptor."""
    changed = latents().clone()
    changed[0, :, 2, 5, 7] += 1
    module = truncated((1, 1, 1), 1, 0, [1])
    with torch.no_grad():
        moved = (module(changed) - module(latents())).abs().amax(-1)
    assert moved.nonzero().tolist() == [[2, 5, 7]]


def test_without_a_norm_before_the_prompt() -> None:
    model, context = transformer(cross_attn_norm=False), prompt(5)
    found = internals(model, DENOISING.noised(latents()), torch.tensor([TIMESTEP]), context)
    cut = Cut(3, (0, 1, 2), tuple(range(HEAD_DIM)), 3)
    keys = descriptors_of(model, cut, DENOISING, latents(), context)
    assert head_errors(keys, found["keys", True][3]) <= MAX_RELATIVE_ERROR


# Prompts


@cache
def caught_in_double(real: int, length: int) -> dict[Reading, list[Tensor]]:
    """Of a padded prompt: single precision loses 1e-6 where it adds 511 equal exponentials."""
    model = deepcopy(transformer()).double()
    noised = DENOISING.noised(latents()).double()
    timestep, context = torch.tensor([TIMESTEP]), prompt(real, length).double()
    return internals(model, noised, timestep, context)


@pytest.mark.parametrize("real", [1, 7])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_padding_is_merged_exactly(
    monkeypatch: pytest.MonkeyPatch, reading: Reading, real: int
) -> None:
    """The unmodified model is given all 512 tokens, of which those after the first are zeros."""
    read = caught_in_double(real, 512)[reading]
    for block in range(LAYERS):
        cut = Cut(block, (0, 1, 2), tuple(range(HEAD_DIM)), 3, *reading)
        merged = WanPath(transformer(), LATENT_SHAPE, cut, DENOISING, prompt(real, 512))
        with monkeypatch.context() as patched:
            patched.setattr(wan, "merge_tokens", lambda every: (every, torch.zeros(len(every))))
            apart = WanPath(transformer(), LATENT_SHAPE, cut, DENOISING, prompt(real, 512))
        with torch.no_grad():
            found, unmerged = merged(latents()), apart(latents())
        assert error(found.flatten(0, 2), read[block].flatten(1)) <= 1e-6
        assert error(found, unmerged) <= 3e-6
        # Keys and values of what was merged are no constants any more; the logarithms are.
        whole = len(merged.blocks)
        gone = 2 * (512 - real - 1) * HEADS * HEAD_DIM * whole
        added = real + 1 if whole else 0
        assert bytes_of(apart) - bytes_of(merged) == 4 * (gone - added)


def bytes_of(module: WanPath) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


# Variants of Wan


def test_a_timestep_for_every_token() -> None:
    """Wan2.2-TI2V: from text alone all timesteps are equal, and the path takes the one."""
    shape = (48, 3, 8, 12)
    model, context = transformer(channels=48), prompt(1, 512)
    noised, tokens = DENOISING.noised(latents(shape)), 3 * 4 * 6
    expanded = torch.full((1, tokens), TIMESTEP)
    found = internals(model, noised, expanded, context)
    for (tensor, rotated), block in product(READINGS, range(LAYERS)):
        cut = Cut(block, (0, 1, 2), tuple(range(HEAD_DIM)), 3, tensor, rotated)
        path = descriptors_of(model, cut, DENOISING, latents(shape), context)
        assert head_errors(path, found[tensor, rotated][block]) <= MAX_RELATIVE_ERROR
    # From a clean first frame, whose timestep is 0, other features would follow.
    expanded[:, : tokens // 3] = 0
    clean_first = internals(model, noised, expanded, context)
    for reading in READINGS:
        assert error(clean_first[reading][0], found[reading][0]) > 1e-2


SCHEDULERS = {
    # As Wan's checkpoints configure it for 480 rows; for 720 the shift is 5.
    "unipc": UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
    "euler": FlowMatchEulerDiscreteScheduler(shift=5.0),
}


def scheduled(name: str, step: int, clean: Tensor) -> tuple[Tensor, Tensor, Denoising]:
    """Latents with a scheduler's own noise, its timestep, and the same for the path."""
    scheduler = SCHEDULERS[name]
    scheduler.set_timesteps(50)
    timestep = scheduler.timesteps[step : step + 1]
    noise = seeded_noise(clean.shape, SEED)
    if name == "unipc":
        noised = scheduler.add_noise(clean, noise, timestep)
    else:
        noised = scheduler.scale_noise(clean, timestep, noise)
    sigma = float(scheduler.sigmas[step])
    return noised, timestep, Denoising(float(timestep), 1 - sigma, sigma, SEED)


@pytest.mark.parametrize("step", [0, 15, 49])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_noise_is_mixed_as_the_schedulers_do(scheduler: str, step: int) -> None:
    noised, timestep, denoising = scheduled(scheduler, step, latents())
    assert torch.allclose(denoising.noised(latents()), noised, atol=1e-6)
    # UniPC rounds to whole timesteps.
    assert abs(float(timestep) - 1000 * denoising.noise) < (1 if scheduler == "unipc" else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "step"), [("unipc", 49), ("euler", 15)])
def test_every_block_and_head_at_full_depth(scheduler: str, step: int) -> None:
    """As deep as Wan2.1-1.3B and Wan2.2-5B, narrow; an empty prompt of 512 tokens."""
    layers, heads, head_dim = 30, 4, 16
    model = transformer(layers=layers, heads=heads, head_dim=head_dim)
    clean, context = latents((LATENTS, 3, 6, 8)), prompt(1, 512)
    noised, timestep, denoising = scheduled(scheduler, step, clean)
    found = internals(model, noised, timestep, context)
    for (tensor, rotated), block in product(READINGS, range(layers)):
        cut = Cut(block, tuple(range(heads)), tuple(range(head_dim)), 3, tensor, rotated)
        path = descriptors_of(model, cut, denoising, clean, context)
        worst = head_errors(path, found[tensor, rotated][block])
        assert worst <= MAX_RELATIVE_ERROR, (tensor, rotated, block)


# Graphs


@pytest.fixture(scope="module", params=[(PATCHES[0], 1, 2), (PATCHES[1], 5, LAYERS - 1)], ids=str)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, int, int], int, int]:
    patch, tokens, block = request.param
    path = tmp_path_factory.mktemp("graph") / "features.onnx"
    _export(truncated(patch, tokens, block, [2, 0]), path)
    return path, patch, tokens, block


def _export(module: WanPath, path: Path) -> None:
    export_graph(module, {"latents": latents()}, path, outputs=["descriptors"])


Exported = tuple[Path, tuple[int, int, int], int, int]


@pytest.mark.slow
def test_graph_gives_the_keys_of_the_whole_model(exported: Exported) -> None:
    path, patch, tokens, block = exported
    outputs = OnnxRuntimeSession(path).run({"latents": latents().numpy()})
    expected = chosen(caught(patch, tokens)["keys", True][block], [2, 0], CHANNELS)
    assert relative_error(path, outputs["descriptors"], expected) <= MAX_RELATIVE_ERROR


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reading", "block", "newest"),
    [(("keys", False), 1, 3), (("queries", True), 2, 1), (("hidden", True), 1, 2)],
    ids=str,
)
def test_graphs_of_other_readings(
    tmp_path: Path, reading: Reading, block: int, newest: int
) -> None:
    """Behind a padded prompt, whose equal tokens are constants no more."""
    path = tmp_path / "features.onnx"
    module = truncated(PATCHES[1], 1, block, [2, 0], described=newest, reading=reading, length=512)
    _export(module, path)
    (output,) = OnnxRuntimeSession(path).run({"latents": latents().numpy()}).values()
    whole = chosen(caught(PATCHES[1], 1, 512)[reading][block], [2, 0], CHANNELS)
    expected = whole.reshape(3, -1)[-newest:]
    assert relative_error(path, output, expected) <= MAX_RELATIVE_ERROR
    graph = onnx.load(path).graph
    assert not [weights.name for weights in graph.initializer if 512 in weights.dims]
    # In each whole block, attention to itself is a node; to the prompt, counts are added.
    attentions = block + (reading[0] == "hidden")
    assert [node.op_type for node in graph.node].count("MultiHeadAttention") == attentions
    assert biased_softmaxes(graph) == attentions


def biased_softmaxes(graph: onnx.GraphProto) -> int:
    makers = {name: node.op_type for node in graph.node for name in node.output}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    return [makers[node.input[0]] for node in softmaxes].count("Add")


def test_graph_has_static_named_tensors(exported: Exported) -> None:
    path, patch, _, _ = exported
    session = OnnxRuntimeSession(path)
    assert {name: tensor.shape for name, tensor in session.inputs.items()} == {
        "latents": (1, *LATENT_SHAPE)
    }
    grid = (3, 8 // patch[1], 12 // patch[2])
    assert {name: tensor.shape for name, tensor in session.outputs.items()} == {
        "descriptors": (*grid, 2 * len(CHANNELS))
    }


def test_graph_holds_nothing_of_text_timestep_or_later_blocks(exported: Exported) -> None:
    path, _, tokens, block = exported
    graph = onnx.load(path).graph
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"ScatterND", "Sin", "Cos", "Sigmoid", "Shape", "If", "Loop"}
    attentions = block * (1 if tokens == 1 else 2)
    assert operators["MultiHeadAttention"] == attentions
    assert operators["Softmax"] == 0
    assert operators["Gelu"] == block
    assert len(graph.node) <= 50 + 80 * block + 25 * (attentions - block)
    names = [weights.name for weights in graph.initializer]
    assert not [name for name in names if "embedder" in name or f"blocks.{block}" in name]
    assert path.stat().st_size <= 1.1 * _bytes_needed(block, tokens) + 50_000


def _bytes_needed(block: int, tokens: int) -> int:
    """Of the weights: whole blocks, the last one's key projection, and the noise."""
    model = transformer(PATCHES[0])
    whole = sum(p.numel() for p in model.blocks[0].parameters())
    # With one token all of cross-attention is one vector; else keys and values are constants.
    attention = sum(p.numel() for p in model.blocks[0].attn2.parameters())
    whole -= attention if tokens == 1 else attention // 2
    keys = sum(p.numel() for p in model.blocks[0].attn1.to_k.parameters())
    return 4 * (block * whole + keys + latents().numel())


def test_graph_tells_nothing_of_the_machine(exported: Exported) -> None:
    content = exported[0].read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.slow
def test_same_module_same_file(exported: Exported, tmp_path: Path) -> None:
    path, patch, tokens, block = exported
    _export(truncated(patch, tokens, block, [2, 0]), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_wrong_graph_is_refused() -> None:
    reference = torch.ones(4)
    for output in (np.full(4, 1.001), np.full(4, np.nan)):
        with pytest.raises(VditrackError, match="differs from the model"):
            relative_error(Path("features.onnx"), output, reference)


# Frequencies


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("low", [0.0, 0.15, 0.4, 0.9])
def test_kept_channels_have_the_lowest_frequencies(head_dim: int, low: float) -> None:
    model = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=head_dim, num_layers=0, ffn_dim=1
    )
    # Radians a step, from the model's own tables.
    frequencies = torch.atan2(model.rope.freqs_sin[1], model.rope.freqs_cos[1])
    axes = wan_rotary_axes(head_dim)
    assert axes == (model.rope.t_dim, model.rope.h_dim, model.rope.w_dim)
    kept = set(low_frequency_channels(axes, (low, 1.0)))
    for axis in torch.arange(head_dim).split(axes):
        inside = [float(frequencies[c]) for c in axis.tolist() if c in kept]
        outside = [float(frequencies[c]) for c in axis.tolist() if c not in kept]
        assert 0 <= low * len(axis) - len(outside) < 2
        assert not outside or max(inside) < min(outside)


def test_kept_channels_of_wan() -> None:
    # HeFT, Wan2.1-1.3B: 0.15 to 1 of 44, 42 and 42 channels.
    kept = low_frequency_channels(wan_rotary_axes(128), (0.15, 1.0))
    assert kept == [*range(6, 44), *range(50, 86), *range(92, 128)]


@given(st.sampled_from([24, 32, 64, 128]), st.floats(0.1, 0.9))
def test_ranges_that_meet_share_the_channels(head_dim: int, middle: float) -> None:
    axes = wan_rotary_axes(head_dim)
    high = low_frequency_channels(axes, (0.0, middle)) if middle * max(axes) >= 2 else []
    low = low_frequency_channels(axes, (middle, 1.0))
    assert sorted(high + low) == list(range(head_dim))


def test_empty_range_is_refused() -> None:
    with pytest.raises(InputError, match="keeps no channel"):
        low_frequency_channels((12, 10, 10), (0.0, 0.1))
