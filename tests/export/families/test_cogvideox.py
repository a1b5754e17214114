"""The truncated CogVideoX gives what the unmodified diffusers model computes."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.families.cogvideox.transformer import CogVideoXPath, cogvideox_rotary_axes
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, TensorName, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR

LAYERS, HEADS, HEAD_DIM, TEXT_TOKENS, TEXT_DIM = 3, 3, 16, 5, 12
LATENT_SHAPE = (4, 3, 8, 12)
# Last of 50 steps, CogVideoX-2B: see test_noise_is_mixed_as_the_scheduler_does.
DENOISING = Denoising(timestep=19.0, signal=0.97291982, noise=0.23114286, seed=3)
CHANNELS = (0, 1, 6, 7, 10, 11, 12, 13)
ROTARY = pytest.mark.parametrize("rotary", [False, True], ids=["absolute", "rotary"])


@cache
def transformer(rotary: bool, layers: int = LAYERS) -> CogVideoXTransformer3DModel:
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        time_embed_dim=24,
        text_embed_dim=TEXT_DIM,
        num_layers=layers,
        # Neither the shape of the latents nor its proportions.
        sample_width=10,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=TEXT_TOKENS,
        use_rotary_positional_embeddings=rotary,
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
def prompt() -> Tensor:
    return torch.randn(TEXT_TOKENS, TEXT_DIM, generator=torch.Generator().manual_seed(2))


@dataclass
class Caught(TorchFunctionMode):
    """What every block of the whole model computes for the video: [tokens, heads, head_dim]."""

    cells: int
    """Tokens of a frame."""
    keys: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    unrotated_keys: list[Tensor] = field(default_factory=list)
    unrotated_queries: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            query, key, _ = args
            self.keys.append(_video(key))
            self.queries.append(_video(query))
        return function(*args, **(kwargs or {}))

    def listen_to(self, model: CogVideoXTransformer3DModel, hooks: ExitStack) -> None:
        def keep(into: list[Tensor], _module, _inputs, output) -> None:
            # A copy: the rotary embedding is written over what the norms gave.
            into.append(_video(output.clone()))

        def keep_hidden(_module, _inputs, output) -> None:
            self.hidden.append(output[0][0].unflatten(-1, (HEADS, HEAD_DIM)))

        for block in model.transformer_blocks:
            attention = block.attn1
            for hook in (
                attention.norm_k.register_forward_hook(partial(keep, self.unrotated_keys)),
                attention.norm_q.register_forward_hook(partial(keep, self.unrotated_queries)),
                block.register_forward_hook(keep_hidden),
            ):
                hooks.callback(hook.remove)

    def of(self, cut: Cut) -> Tensor:
        """What the cut describes, [described tokens, D], from the whole model."""
        before = "" if cut.rotated or cut.tensor == "hidden" else "unrotated_"
        every = getattr(self, before + cut.tensor)[cut.block]
        chosen = every[:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)
        return chosen.unflatten(0, (-1, self.cells))[-cut.described :].flatten(0, 1)


def _video(x: Tensor) -> Tensor:
    """Without the text: [1, heads, text + video, head_dim] to [video, heads, head_dim]."""
    return x[0, :, TEXT_TOKENS:].transpose(0, 1)


@cache
def caught(rotary: bool, shape: LatentShape = LATENT_SHAPE, layers: int = LAYERS) -> Caught:
    model = transformer(rotary, layers)
    # The encoder of the pipeline halves the picture three times.
    pipeline = SimpleNamespace(transformer=model, vae_scale_factor_spatial=8)
    _, frames, rows, columns = shape
    angles = CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipeline, 8 * rows, 8 * columns, frames, torch.device("cpu")
    )
    seen = Caught(cells=rows // 2 * (columns // 2))
    with ExitStack() as hooks, torch.no_grad(), seen:
        seen.listen_to(model, hooks)
        model(
            DENOISING.noised(latents(shape)).transpose(1, 2),
            prompt()[None],
            torch.tensor([DENOISING.timestep]),
            image_rotary_emb=angles if rotary else None,
        )
    return seen


def path(
    rotary: bool, cut: Cut, shape: LatentShape = LATENT_SHAPE, layers: int = LAYERS
) -> CogVideoXPath:
    return CogVideoXPath(transformer(rotary, layers), shape, cut, DENOISING, prompt()).eval()


def error_of(
    rotary: bool, cut: Cut, shape: LatentShape = LATENT_SHAPE, layers: int = LAYERS
) -> float:
    """Largest difference from the whole model over its largest magnitude."""
    with torch.no_grad():
        descriptors = path(rotary, cut, shape, layers)(latents(shape))
    grid = (cut.described, shape[2] // 2, shape[3] // 2)
    assert descriptors.shape == (*grid, len(cut.heads) * len(cut.channels))
    return relative(descriptors, caught(rotary, shape, layers).of(cut))


def relative(descriptors: Tensor, expected: Tensor) -> float:
    difference = descriptors.flatten(0, 2) - expected
    return float(difference.abs().max() / expected.abs().max())


@pytest.mark.parametrize("tensor", ["keys", "queries", "hidden"])
@pytest.mark.parametrize("described", [1, 2, 3])
@pytest.mark.parametrize("block", range(LAYERS))
@ROTARY
def test_descriptors_are_those_of_the_whole_model(
    rotary: bool, block: int, described: int, tensor: TensorName
) -> None:
    for heads in [(0,), (1,), (2, 0), (0, 1, 2)]:
        for channels in [CHANNELS, tuple(range(HEAD_DIM))]:
            for rotated in [True, False]:
                cut = Cut(block, heads, channels, described, tensor, rotated)
                assert error_of(rotary, cut) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize(
    "shape", [(4, 2, 8, 10), (4, 1, 12, 6), (4, 5, 6, 16), (4, 2, 14, 18)], ids=str
)
@ROTARY
def test_positions_are_those_of_the_pipeline(rotary: bool, shape: LatentShape) -> None:
    cut = Cut(1, (0, 1, 2), tuple(range(HEAD_DIM)), described=1)
    assert error_of(rotary, cut, shape) <= MAX_RELATIVE_ERROR


def test_rotation_changes_keys_where_there_is_one() -> None:
    """Otherwise the two would be one reading, and their tests one test."""
    cut, before = (Cut(0, (1,), CHANNELS, 3, rotated=rotated) for rotated in [True, False])
    for rotary in [False, True]:
        same = torch.equal(caught(rotary).of(cut), caught(rotary).of(before))
        assert same is not rotary


@ROTARY
def test_error_does_not_grow_with_depth(rotary: bool) -> None:
    for block in [15, 29]:
        for tensor in ["keys", "hidden"]:
            cut = Cut(block, (0, 1, 2), tuple(range(HEAD_DIM)), 2, tensor)
            assert error_of(rotary, cut, layers=30) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("tensor", ["keys", "hidden"])
@pytest.mark.parametrize("described", [1, 3])
def test_nothing_is_computed_that_is_not_read(described: int, tensor: TensorName) -> None:
    """Multiplications, by the sizes of the matrices."""
    module = path(False, Cut(2, (2, 0), CHANNELS, described, tensor))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        module(latents())
    width, cells = HEADS * HEAD_DIM, 4 * 6
    tokens, newest = TEXT_TOKENS + 3 * cells, described * cells
    # Keys, values, attention; for tokens that ask also queries, output and feed-forward network.
    blocks = [
        2 * tokens * width**2 + 2 * tokens * asking * width + 10 * asking * width**2
        for asking in ([tokens, newest] if tensor == "keys" else [tokens, tokens, newest])
    ]
    read = newest * width * 2 * HEAD_DIM if tensor == "keys" else 0
    patches = 3 * cells * width * (2 * 2 * LATENT_SHAPE[0])
    assert counter.get_total_flops() == 2 * (patches + sum(blocks) + read)


def test_descriptors_lie_on_the_grid_row_by_row() -> None:
    """In block 0 nothing mixes cells: a change in one latent cell changes one descriptor."""
    changed = latents().clone()
    changed[0, :, 2, 5, 7] += 1
    module = path(rotary=True, cut=Cut(0, (1,), CHANNELS, 3))
    with torch.no_grad():
        moved = (module(changed) - module(latents())).abs().amax(-1)
    assert moved.nonzero().tolist() == [[2, 2, 3]]


EXPORTED = [
    (False, Cut(0, (1,), CHANNELS, 3)),
    (False, Cut(2, (2, 0), CHANNELS, 1)),
    (True, Cut(2, (2, 0), CHANNELS, 1)),
    (True, Cut(1, (0, 1), CHANNELS, 2, "queries", rotated=False)),
    (True, Cut(1, (0, 1), CHANNELS, 2, "hidden")),
]


@pytest.fixture(
    scope="module",
    params=EXPORTED,
    ids=["block-0", "absolute", "rotary", "queries-before-rotary", "hidden"],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bool, Cut]:
    rotary, cut = request.param
    file = tmp_path_factory.mktemp("graph") / "features.onnx"
    export_graph(path(rotary, cut), {"latents": latents()}, file, outputs=["descriptors"])
    return file, rotary, cut


@pytest.mark.slow
def test_graph_gives_what_the_whole_model_computes(exported: tuple[Path, bool, Cut]) -> None:
    file, rotary, cut = exported
    outputs = OnnxRuntimeSession(file).run({"latents": latents().numpy()})
    descriptors = torch.from_numpy(outputs["descriptors"])
    assert descriptors.shape == (cut.described, 4, 6, len(cut.heads) * len(CHANNELS))
    assert relative(descriptors, caught(rotary).of(cut)) <= MAX_RELATIVE_ERROR


def test_graph_holds_nothing_of_timestep_or_later_blocks(exported: tuple[Path, bool, Cut]) -> None:
    file, rotary, cut = exported
    graph = onnx.load(file).graph
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"ScatterND", "Sin", "Cos", "Sigmoid", "Shape", "If", "Loop"}
    whole = cut.block + (cut.tensor == "hidden")
    assert operators["MultiHeadAttention"] == operators["Gelu"] == whole
    assert operators["Softmax"] == 0
    names = [weights.name for weights in graph.initializer]
    left_out = ("time_embedding", "text_proj", "linear", f"blocks.{whole}")
    assert not [name for name in names if any(part in name for part in left_out)]
    assert file.stat().st_size <= 1.1 * _bytes_needed(rotary, cut, whole) + 50_000


def _bytes_needed(rotary: bool, cut: Cut, whole: int) -> int:
    """Of the weights: whole blocks less their timestep's, the heads read, noise and patches."""
    model = transformer(rotary)
    block = model.transformer_blocks[0]
    modulation = sum(p.numel() for n in (block.norm1, block.norm2) for p in n.linear.parameters())
    each = sum(p.numel() for p in block.parameters()) - modulation
    read = HEADS * HEAD_DIM * HEAD_DIM * len(cut.heads)
    patches = sum(p.numel() for p in model.patch_embed.proj.parameters())
    return 4 * (whole * each + read + patches + latents().numel())


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize(
    ("snr_shift", "signal", "noise"),
    [(3.0, 0.97291982, 0.23114286), (1.0, 0.99045972, 0.13780255)],
    ids=["2B", "5B"],
)
def test_noise_is_mixed_as_the_scheduler_does(
    scheduler: type, snr_shift: float, signal: float, noise: float
) -> None:
    """The checkpoints' scheduler_config.json differ in the shift alone."""
    steps = scheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=snr_shift,
    )
    steps.set_timesteps(50)
    last = steps.timesteps[-1:]
    denoising = Denoising(19.0, signal, noise, seed=3)
    assert float(last) == denoising.timestep
    expected = steps.add_noise(latents(), seeded_noise(latents().shape, 3), last)
    assert torch.allclose(denoising.noised(latents()), expected, atol=1e-6)


@pytest.mark.parametrize("low", [0.0, 0.15, 0.4])
def test_kept_channels_have_the_lowest_frequencies(low: float) -> None:
    model = transformer(rotary=True)
    pipeline = SimpleNamespace(transformer=model, vae_scale_factor_spatial=8)
    # The size trained on: steps of one cell. Cell (1, 1, 1) has turned by one step on every axis.
    cos, sin = CogVideoXPipeline._prepare_rotary_positional_embeddings(pipeline, 64, 80, 2, "cpu")
    frequencies = torch.atan2(sin, cos).unflatten(0, (2, 4, 5))[1, 1, 1]
    axes = cogvideox_rotary_axes(HEAD_DIM)
    kept = set(low_frequency_channels(axes, (low, 1.0)))
    for axis in torch.arange(HEAD_DIM).split(axes):
        inside = [float(frequencies[c]) for c in axis.tolist() if c in kept]
        outside = [float(frequencies[c]) for c in axis.tolist() if c not in kept]
        assert frequencies[axis[0]] == pytest.approx(1.0)
        assert not outside or max(inside) < min(outside)


def test_axes_of_cogvideox() -> None:
    assert cogvideox_rotary_axes(64) == (16, 24, 24)
