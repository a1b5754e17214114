"""The truncated transformer gives the keys that the unmodified diffusers model computes."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vditrack.backends.onnxruntime import OnnxRuntimeSession
from vditrack.errors import InputError, VditrackError
from vditrack_export.frequencies import low_frequency_channels, wan_rotary_axes
from vditrack_export.graph import export_graph
from vditrack_export.parity import MAX_RELATIVE_ERROR, attention_keys, chosen, relative_error
from vditrack_export.paths.cut import Cut, Denoising, seeded_noise
from vditrack_export.paths.wan import WanKeys

LAYERS, HEADS, HEAD_DIM, LATENTS, TEXT_DIM = 4, 3, 32, 8, 16
LATENT_SHAPE = (LATENTS, 3, 8, 12)
SIGMA, TIMESTEP, SEED = 0.1, 100.0, 3
DENOISING = Denoising(TIMESTEP, 1 - SIGMA, SIGMA, SEED)
PATCHES = [(1, 1, 1), (1, 2, 2)]
CHANNELS = [4, 5, 10, 11, 16, 17, 20, 21, 30, 31]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def transformer(patch: tuple[int, int, int]) -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=patch,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        in_channels=LATENTS,
        out_channels=LATENTS,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=128,
        num_layers=LAYERS,
    ).eval()
    # Norms start as ones and zeros, and would hide a weight that is left out.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@cache
def latents() -> Tensor:
    return torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(1))


@cache
def prompt(tokens: int) -> Tensor:
    return torch.randn(tokens, TEXT_DIM, generator=torch.Generator().manual_seed(2))


@cache
def caught(patch: tuple[int, int, int], tokens: int, block: int) -> Tensor:
    noised = DENOISING.noised(latents())
    return attention_keys(transformer(patch), block, noised, TIMESTEP, prompt(tokens))


def truncated(
    patch: tuple[int, int, int],
    tokens: int,
    block: int,
    heads: list[int],
    channels: list[int] = CHANNELS,
    described: int = LATENT_SHAPE[1],
) -> WanKeys:
    cut = Cut(block, tuple(heads), tuple(channels), described)
    return WanKeys(transformer(patch), LATENT_SHAPE, cut, DENOISING, prompt(tokens)).eval()


@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("patch", PATCHES)
def test_keys_are_those_of_the_whole_model(
    patch: tuple[int, int, int], tokens: int, block: int
) -> None:
    keys = caught(patch, tokens, block)
    all_heads = [[0], [2], [2, 0], [0, 1, 2]]
    for heads, channels in product(all_heads, [CHANNELS, list(range(HEAD_DIM))]):
        with torch.no_grad():
            descriptors = truncated(patch, tokens, block, heads, channels)(latents())
        expected = chosen(keys, heads, channels)
        grid = (3, 8 // patch[1], 12 // patch[2])
        assert descriptors.shape == (*grid, len(heads) * len(channels))
        error = (descriptors.flatten(0, 2) - expected).abs().max() / expected.abs().max()
        assert error <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize("described", [1, 2])
def test_keys_of_the_newest_frames_alone(block: int, described: int) -> None:
    """Leaving out what earlier frames would have become changes nothing."""
    patch, tokens = PATCHES[1], 5
    with torch.no_grad():
        newest = truncated(patch, tokens, block, [0, 2], described=described)(latents())
    whole = chosen(caught(patch, tokens, block), [0, 2], CHANNELS).reshape(3, 4, 6, -1)
    assert newest.shape[0] == described
    error = (newest - whole[-described:]).abs().max() / whole.abs().max()
    assert error <= MAX_RELATIVE_ERROR


def test_keys_lie_on_the_grid_row_by_row() -> None:
    """In block 0 nothing mixes cells: a change in one latent cell changes one descriptor."""
    changed = latents().clone()
    changed[0, :, 2, 5, 7] += 1
    module = truncated((1, 1, 1), 1, 0, [1])
    with torch.no_grad():
        moved = (module(changed) - module(latents())).abs().amax(-1)
    assert moved.nonzero().tolist() == [[2, 5, 7]]


@pytest.fixture(scope="module", params=[(PATCHES[0], 1, 2), (PATCHES[1], 5, LAYERS - 1)], ids=str)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, int, int], int, int]:
    patch, tokens, block = request.param
    path = tmp_path_factory.mktemp("graph") / "features.onnx"
    _export(truncated(patch, tokens, block, [2, 0]), path)
    return path, patch, tokens, block


def _export(module: WanKeys, path: Path) -> None:
    export_graph(module, latents(), path, input_name="latents", output_name="descriptors")


Exported = tuple[Path, tuple[int, int, int], int, int]


def test_graph_gives_the_keys_of_the_whole_model(exported: Exported) -> None:
    path, patch, tokens, block = exported
    outputs = OnnxRuntimeSession(path).run({"latents": latents().numpy()})
    expected = chosen(caught(patch, tokens, block), [2, 0], CHANNELS)
    assert relative_error(path, outputs["descriptors"], expected) <= MAX_RELATIVE_ERROR


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
    assert operators["Softmax"] == attentions
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


def test_same_module_same_file(exported: Exported, tmp_path: Path) -> None:
    path, patch, tokens, block = exported
    _export(truncated(patch, tokens, block, [2, 0]), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_wrong_graph_is_refused() -> None:
    reference = torch.ones(4)
    for output in (np.full(4, 1.001), np.full(4, np.nan)):
        with pytest.raises(VditrackError, match="differs from the model"):
            relative_error(Path("features.onnx"), output, reference)


def test_noise_is_mixed_as_wans_scheduler_does() -> None:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(50)
    last, sigma = scheduler.timesteps[-1:], float(scheduler.sigmas[-2])
    noise = seeded_noise(latents().shape, SEED)
    expected = scheduler.add_noise(latents(), noise, last)
    mixed = (1 - sigma) * latents() + sigma * noise
    assert torch.allclose(mixed, expected, atol=1e-6)
    # The scheduler rounds to whole timesteps.
    assert abs(float(last) - 1000 * sigma) < 1


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
