"""The cut Cosmos transformer gives what the unmodified diffusers model computes inside."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLWan,
    Cosmos2VideoToWorldPipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.models.transformers import transformer_cosmos
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.families.cosmos import transformer as cosmos
from vditrack_export.families.cosmos.transformer import CosmosPath
from vditrack_export.families.read_spec import Cut, Denoising, TensorName, seeded_noise
from vditrack_export.families.rotary import cosmos_channels
from vditrack_export.pipeline.onnx_export import export_graph

TOLERANCE = 1e-5
LAYERS, HEADS, HEAD_DIM, LATENTS, TEXT_DIM = 4, 3, 32, 4, 16
LATENT_SHAPE = (LATENTS, 3, 8, 12)
GRID = (3, 4, 6)
FPS = 10.0
# Sigma 0.25 of the pipeline's scheduler.
DENOISING = Denoising(timestep=0.2, signal=0.8, noise=0.2, seed=3)
RANGE = (0.3, 1.0)
CHANNELS = tuple(cosmos_channels(HEAD_DIM, RANGE, "rotary"))
EVERY_HEAD, EVERY_CHANNEL = tuple(range(HEADS)), tuple(range(HEAD_DIM))


@cache
def transformer(layers: int = LAYERS, heads: int = HEADS, head_dim: int = HEAD_DIM) -> Any:
    """A small Cosmos-Predict2 Video2World: beside the latents it takes two masks."""
    torch.manual_seed(0)
    model = CosmosTransformer3DModel(
        in_channels=LATENTS + 1,
        out_channels=LATENTS,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        num_layers=layers,
        mlp_ratio=2,
        text_embed_dim=TEXT_DIM,
        adaln_lora_dim=8,
        rope_scale=(1.0, 3.0, 3.0),
        concat_padding_mask=True,
        extra_pos_embed_type=None,
    ).eval()
    # Norms start as ones, and would hide a weight that is left out.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@cache
def latents() -> Tensor:
    return torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(1))


@cache
def prompt(tokens: int, padding: int = 0) -> Tensor:
    embeddings = torch.randn(tokens, TEXT_DIM, generator=torch.Generator().manual_seed(2))
    return torch.cat((embeddings, torch.zeros(padding, TEXT_DIM)))


@dataclass
class Inside:
    """What the model computed, by block: [tokens, heads, head_dim]."""

    keys: list[Tensor]
    queries: list[Tensor]
    unrotated_keys: list[Tensor]
    unrotated_queries: list[Tensor]
    hidden: list[Tensor]

    def expected(self, cut: Cut) -> Tensor:
        turned = cut.tensor == "hidden" or cut.rotated
        values: list[Tensor] = getattr(self, cut.tensor if turned else f"unrotated_{cut.tensor}")
        chosen = values[cut.block][:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)
        return chosen.reshape(*GRID, -1)[-cut.described :]


class Listener(TorchFunctionMode):
    """Keeps what is handed to scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self.calls.append(kwargs)
        return function(*args, **kwargs)


def run(model: Any, text: Tensor, denoising: Denoising = DENOISING, fps: float = FPS) -> None:
    """One step as the pipeline makes it, with no frame conditioned.

    diffusers resizes the padding mask with torchvision, whose CPU build is not on PyPI. So the
    model takes the mask ready made, behind the other one, where it would put it itself.
    """
    frames, rows, columns = LATENT_SHAPE[1:]
    model.register_to_config(concat_padding_mask=False)
    model(
        hidden_states=denoising.noised(latents()),
        timestep=torch.full((1, 1, frames, 1, 1), denoising.timestep),
        encoder_hidden_states=text[None],
        fps=fps,
        condition_mask=torch.zeros(1, 2, frames, rows, columns),
        return_dict=False,
    )
    model.register_to_config(concat_padding_mask=True)


def inside(model: Any, step: Callable[[], None]) -> Inside:
    heads = model.config.num_attention_heads
    found = Inside([], [], [], [], [])

    def keep(into: list[Tensor], *, parted: bool) -> Callable[..., None]:
        def hook(_module: object, _args: object, output: Tensor) -> None:
            parts = output[0].transpose(0, 1) if parted else output[0].unflatten(-1, (heads, -1))
            into.append(parts)

        return hook

    hooks = []
    for block in model.transformer_blocks:
        attention = block.attn1
        hooks.append(
            attention.norm_k.register_forward_hook(keep(found.unrotated_keys, parted=True))
        )
        hooks.append(
            attention.norm_q.register_forward_hook(keep(found.unrotated_queries, parted=True))
        )
        hooks.append(block.register_forward_hook(keep(found.hidden, parted=False)))
    with torch.no_grad(), Listener() as listener:
        step()
    for hook in hooks:
        hook.remove()
    # Every block attends to the tokens, then to the prompt.
    for call in listener.calls[::2]:
        found.keys.append(call["key"][0].transpose(0, 1))
        found.queries.append(call["query"][0].transpose(0, 1))
    return found


@cache
def truth(tokens: int, padding: int) -> Inside:
    model = transformer()
    return inside(model, lambda: run(model, prompt(tokens, padding)))


def path(cut: Cut, text: Tensor, model: Any = None) -> CosmosPath:
    return CosmosPath(model or transformer(), LATENT_SHAPE, cut, DENOISING, text, FPS).eval()


def descriptors(module: CosmosPath) -> Tensor:
    with torch.no_grad():
        return module(latents())


def relative_error(values: Tensor, expected: Tensor) -> float:
    assert values.shape == expected.shape
    return float((values - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize(
    ("tensor", "rotated"),
    [("keys", True), ("keys", False), ("queries", True), ("queries", False), ("hidden", True)],
)
@pytest.mark.parametrize("prompted", [(5, 0), (2, 6)])
def test_descriptors_are_from_inside_the_whole_model(
    block: int, tensor: TensorName, rotated: bool, prompted: tuple[int, int]
) -> None:
    for heads in [(0,), (1,), (2,), (2, 0), EVERY_HEAD]:
        for channels in [CHANNELS, EVERY_CHANNEL]:
            cut = Cut(block, heads, channels, GRID[0], tensor, rotated)
            read = descriptors(path(cut, prompt(*prompted)))
            error = relative_error(read, truth(*prompted).expected(cut))
            assert error <= TOLERANCE


@pytest.mark.parametrize("block", range(LAYERS))
@pytest.mark.parametrize("described", [1, 2])
@pytest.mark.parametrize("tensor", ["keys", "queries", "hidden"])
def test_descriptors_of_the_newest_frames_alone(
    block: int, described: int, tensor: TensorName
) -> None:
    """Leaving out what earlier frames would have become changes nothing."""
    cut = Cut(block, (0, 2), CHANNELS, described, tensor)
    error = relative_error(descriptors(path(cut, prompt(2, 6))), truth(2, 6).expected(cut))
    assert error <= TOLERANCE


def test_channels_of_the_reference_layout() -> None:
    """They part pairs of channels, which the rotary embedding turns together."""
    channels = tuple(cosmos_channels(HEAD_DIM, RANGE, "reference"))
    assert set(channels) != {(channel + HEAD_DIM // 2) % HEAD_DIM for channel in channels}
    cut = Cut(2, (1, 2), channels, 2)
    error = relative_error(descriptors(path(cut, prompt(2, 6))), truth(2, 6).expected(cut))
    assert error <= TOLERANCE


def test_descriptors_lie_on_the_grid_row_by_row() -> None:
    """In block 0 nothing mixes cells: a change in one latent cell changes one descriptor."""
    changed = latents().clone()
    changed[0, :, 2, 5, 7] += 1
    module = path(Cut(0, (1,), CHANNELS, GRID[0]), prompt(5))
    with torch.no_grad():
        moved = (module(changed) - module(latents())).abs().amax(-1)
    assert moved.nonzero().tolist() == [[2, 2, 3]]


def test_frame_rate_scales_time() -> None:
    cut = Cut(1, EVERY_HEAD, EVERY_CHANNEL, GRID[0])
    model, text = transformer(), prompt(5)
    module = CosmosPath(model, LATENT_SHAPE, cut, DENOISING, text).eval()
    piped = inside(model, lambda: run(model, text, fps=16)).expected(cut)
    assert relative_error(descriptors(module), piped) <= TOLERANCE
    assert relative_error(descriptors(module), truth(5, 0).expected(cut)) > 100 * TOLERANCE


def test_padding_mask_as_the_model_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for torchvision, which resizes tensors with torch's own interpolation."""

    def resize(mask: Tensor, size: list[int], interpolation: str) -> Tensor:
        return F.interpolate(mask, size, mode=interpolation)

    transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=resize),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", transforms, raising=False)
    model, frames = transformer(), LATENT_SHAPE[1]

    def step() -> None:
        model(
            hidden_states=DENOISING.noised(latents()),
            timestep=torch.tensor([DENOISING.timestep]),
            encoder_hidden_states=prompt(5)[None],
            fps=FPS,
            condition_mask=torch.zeros(1, 1, frames, 8, 12),
            padding_mask=torch.zeros(1, 1, 64, 96),
        )

    cut = Cut(LAYERS - 1, EVERY_HEAD, EVERY_CHANNEL, GRID[0])
    expected = inside(model, step).expected(cut)
    assert relative_error(descriptors(path(cut, prompt(5))), expected) <= TOLERANCE


@pytest.mark.slow
def test_every_block_at_full_depth() -> None:
    """As many blocks as Cosmos-Predict2-2B, so that errors have time to grow."""
    model, text = transformer(28, 2, 24), prompt(2, 6)
    whole = inside(model, lambda: run(model, text))
    for block in range(28):
        for tensor in ("keys", "queries", "hidden"):
            cut = Cut(block, (0, 1), tuple(range(24)), GRID[0], tensor)
            error = relative_error(descriptors(path(cut, text, model)), whole.expected(cut))
            assert error <= TOLERANCE


ROTARY = Cut(2, (2, 0), CHANNELS, 2)
CUTS = [
    ROTARY,
    replace(ROTARY, block=0, tensor="queries", rotated=False),
    Cut(1, (1,), tuple(cosmos_channels(HEAD_DIM, RANGE, "reference")), 3),
    Cut(1, (0, 2), CHANNELS, 1, "hidden"),
]


@pytest.fixture(scope="module", params=CUTS, ids=lambda cut: f"{cut.tensor}{cut.block}")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Cut]:
    file = tmp_path_factory.mktemp("graph") / "features.onnx"
    module = path(request.param, prompt(2, 6))
    export_graph(module, {"latents": latents()}, file, outputs=["descriptors"])
    return file, request.param


@pytest.mark.slow
def test_graph_gives_what_the_whole_model_computes(exported: tuple[Path, Cut]) -> None:
    file, cut = exported
    outputs = OnnxRuntimeSession(file).run({"latents": latents().numpy()})
    read = torch.from_numpy(outputs["descriptors"])
    assert relative_error(read, truth(2, 6).expected(cut)) <= TOLERANCE


def test_graph_holds_nothing_of_text_timestep_or_later_blocks(
    exported: tuple[Path, Cut],
) -> None:
    file, cut = exported
    graph = onnx.load(file).graph
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"ScatterND", "Sin", "Cos", "Sigmoid", "Shape", "If", "Loop"}
    whole = cut.block + (cut.tensor == "hidden")
    # To the prompt, how often each token came is added to the logits.
    assert operators["MultiHeadAttention"] == operators["Softmax"] == whole
    assert operators["Gelu"] == whole
    assert len(graph.node) <= 50 + 130 * whole
    assert file.stat().st_size <= 1.05 * _bytes_needed(cut) + 50_000


def _bytes_needed(cut: Cut) -> int:
    """Of whole blocks, the projection of the chosen heads, patches, noise and rotary tables."""
    model, width = transformer(), HEADS * HEAD_DIM
    block = model.transformer_blocks[0]
    whole = sum(p.numel() for part in (block.attn1, block.ff) for p in part.parameters())
    # The prompt's keys and values are constants of three merged tokens; three norms have gates.
    whole += 2 * width * width + HEAD_DIM + 2 * 3 * width + 3 * 3 * width
    blocks = cut.block + (cut.tensor == "hidden")
    read = 0 if cut.tensor == "hidden" else len(cut.heads) * HEAD_DIM * width
    tables = 2 * HEAD_DIM * math.prod(GRID)
    return 4 * (blocks * whole + read + LATENTS * 4 * width + latents().numel() + tables)


LAST_STEP = 34


class NoSafetyChecker:
    def to(self, device: object) -> None: ...


@cache
def last_step() -> tuple[dict[str, Any], Tensor, Tensor]:
    """What the pipeline gives the transformer at HeFT's step, its latents [1, 16, ...] and sigma.

    The clip that the pipeline denoises is random latents with noise of that step; those before are
    skipped over.
    """
    seen: list[dict[str, Any]] = []
    clip, noise = torch.randn(1, 16, 4, 4, 4), seeded_noise((1, 16, 4, 4, 4), 0)
    model = CosmosTransformer3DModel(
        in_channels=17,
        num_attention_heads=1,
        attention_head_dim=12,
        num_layers=1,
        text_embed_dim=8,
        adaln_lora_dim=4,
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    )
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    pipeline = Cosmos2VideoToWorldPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=model,
        vae=AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=NoSafetyChecker(),
    )
    pipeline.set_progress_bar_config(disable=True)

    def replaced(_: object, index: int, *_rest: object) -> dict[str, Tensor]:
        sigma = pipeline.scheduler.sigmas[LAST_STEP]
        return {"latents": clip + sigma * noise} if index == LAST_STEP - 1 else {}

    pipeline(
        video=torch.zeros(1, 5, 3, 32, 32),
        prompt_embeds=torch.zeros(1, 2, 8),
        height=32,
        width=32,
        num_frames=13,
        guidance_scale=1,
        output_type="latent",
        callback_on_step_end=replaced,
    )
    return seen[LAST_STEP], clip, pipeline.scheduler.sigmas[LAST_STEP]


def test_last_step_is_the_pipelines() -> None:
    given, clip, sigma = last_step()
    level = 0.002 / 1.002
    denoising = Denoising(timestep=level, signal=1 - level, noise=level, seed=0)
    assert float(sigma) == pytest.approx(0.002)
    assert given["fps"] == cosmos.PIPELINE_FPS
    # The pipeline conditions on the two latents that the clip's five frames make.
    marked = given["condition_mask"].amax((0, 1, 3, 4))
    assert marked.tolist() == [1, 1, 0, 0]
    assert given["timestep"].flatten()[2:].tolist() == pytest.approx([denoising.timestep] * 2)
    assert not given["padding_mask"].any()
    noised = denoising.noised(clip)[:, :, 2:]
    assert torch.allclose(given["hidden_states"][:, :, 2:], noised, rtol=0, atol=1e-6)


def operations(step: Callable[[], object]) -> int:
    """By torch's counter, which does not know the CPU's own attention kernel."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        step()
    return counter.get_total_flops()


@pytest.mark.slow
def test_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device: Cosmos-Predict2-2B at HeFT's cut and picture, 25 frames in 7 latents."""
    frames, *_ = shape = (7, 88, 160)
    merged = torch.empty(2, 1024, device="meta"), torch.zeros(2)
    monkeypatch.setattr(cosmos, "merge_tokens", lambda prompt: merged)
    monkeypatch.setattr(cosmos, "seeded_noise", lambda shape, seed: torch.empty(*shape))
    cut = Cut(18, (6,), tuple(cosmos_channels(128, (0.1, 1.0), "rotary")), frames)
    with torch.device("meta"):
        model = CosmosTransformer3DModel(
            in_channels=18,
            num_attention_heads=16,
            concat_padding_mask=False,
            extra_pos_embed_type=None,
            rope_scale=(1.0, 3.0, 3.0),
        )
        clip, masks, text = (
            torch.empty(1, 16, *shape),
            torch.empty(1, 2, *shape),
            torch.empty(512, 1024),
        )
        step = torch.tensor([DENOISING.timestep])
        every, newest = (
            CosmosPath(model, (16, *shape), replace(cut, described=described), DENOISING, text)
            for described in (frames, 1)
        )
        assert every(clip).shape == (frames, 44, 80, len(cut.channels))
        assert newest(clip).shape == (1, 44, 80, len(cut.channels))
        whole = operations(lambda: model(clip, step, text[None], fps=16, condition_mask=masks))
        costs = [operations(lambda path=path: path(clip)) for path in (every, newest)]
    # 18 of 28 blocks; of the last of them, one frame in seven but for keys and values.
    assert costs[0] < 18.1 / 28 * whole
    assert costs[1] < 17.3 / 28 * whole
