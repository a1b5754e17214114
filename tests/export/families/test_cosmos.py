"""Cosmos: layouts of channels, frame rate, masks, the pipeline's step, the cost at full size."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

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
from torch.utils.flop_counter import FlopCounterMode

from doubles.small_families import STEP, SmallFamily, read_inside, relative_difference
from vditrack_export.families import read_spec
from vditrack_export.families.cosmos import transformer as cosmos
from vditrack_export.families.cosmos.transformer import CosmosPath
from vditrack_export.families.read_spec import Cut, Denoising, seeded_noise
from vditrack_export.families.rotary import cosmos_channels

TOLERANCE = 1e-5
HEAD_DIM, FRAMES, GRID = 32, 3, (3, 4, 6)
RANGE = (0.3, 1.0)
EVERY_HEAD, EVERY_CHANNEL = (0, 1, 2), tuple(range(HEAD_DIM))
PROMPT = (5, 0)


@pytest.fixture(scope="module")
def small() -> SmallFamily:
    return SmallFamily("cosmos")


def test_channels_of_the_reference_layout(small: SmallFamily) -> None:
    """They part pairs of channels, which the rotary embedding turns together."""
    channels = tuple(cosmos_channels(HEAD_DIM, RANGE, "reference"))
    assert set(channels) != {(channel + HEAD_DIM // 2) % HEAD_DIM for channel in channels}
    cut = Cut(2, (1, 2), channels, 2)
    found = small.descriptors(cut, (2, 6))
    assert relative_difference(found, small.expected(cut, (2, 6))) <= TOLERANCE


def inside(small: SmallFamily, **changes: Any) -> Tensor:
    """Keys of a block, from the whole model without a conditioned frame."""
    model = small.model()
    given = {
        "hidden_states": STEP.noised(small.latents),
        "timestep": torch.full((1, 1, FRAMES, 1, 1), STEP.timestep),
        "encoder_hidden_states": small.prompt(PROMPT)[None],
        # diffusers resizes the padding mask with torchvision, whose CPU build is not on PyPI. So
        # the model takes the mask ready made, behind the other one, where it would put it itself.
        "condition_mask": torch.zeros(1, 2, FRAMES, 8, 12),
    }
    read = read_inside(
        model.transformer_blocks,
        lambda: model(**given | changes),
        heads=3,
        tokens=3 * 4 * 6,
        text_first=False,
    )
    return read["keys", True][1].flatten(1).reshape(*GRID, -1)


def test_frame_rate_scales_time(small: SmallFamily) -> None:
    cut, model, text = (
        Cut(1, EVERY_HEAD, EVERY_CHANNEL, FRAMES),
        small.model(),
        small.prompt(PROMPT),
    )
    model.register_to_config(concat_padding_mask=False)
    with torch.no_grad():
        default, slow = (
            CosmosPath(model, small.latent_shape, cut, STEP, text, *fps).eval()(small.latents)
            for fps in ((), (10.0,))
        )
    assert relative_difference(default, inside(small, fps=16)) <= TOLERANCE
    assert relative_difference(slow, inside(small, fps=10)) <= TOLERANCE
    assert relative_difference(default, slow) > 100 * TOLERANCE


def test_padding_mask_as_the_model_adds_it(
    small: SmallFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for torchvision, which resizes tensors with torch's own interpolation."""

    def resize(mask: Tensor, size: list[int], interpolation: str) -> Tensor:
        return F.interpolate(mask, size, mode=interpolation)

    transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=resize),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", transforms, raising=False)
    model = small.model()
    model.register_to_config(concat_padding_mask=True)
    expected = inside(
        small,
        timestep=torch.tensor([STEP.timestep]),
        fps=16,
        condition_mask=torch.zeros(1, 1, FRAMES, 8, 12),
        padding_mask=torch.zeros(1, 1, 64, 96),
    )
    model.register_to_config(concat_padding_mask=False)
    cut = Cut(1, EVERY_HEAD, EVERY_CHANNEL, FRAMES)
    assert relative_difference(small.descriptors(cut, PROMPT), expected) <= TOLERANCE


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
    monkeypatch.setattr(read_spec, "seeded_noise", lambda shape, seed: torch.empty(*shape))
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
        step = torch.tensor([STEP.timestep])
        every, newest = (
            CosmosPath(model, (16, *shape), replace(cut, described=described), STEP, text)
            for described in (frames, 1)
        )
        assert every(clip).shape == (frames, 44, 80, len(cut.channels))
        assert newest(clip).shape == (1, 44, 80, len(cut.channels))
        whole = operations(lambda: model(clip, step, text[None], fps=16, condition_mask=masks))
        costs = [operations(lambda path=path: path(clip)) for path in (every, newest)]
    # 18 of 28 blocks; of the last of them, one frame in seven but for keys and values.
    assert costs[0] < 18.1 / 28 * whole
    assert costs[1] < 17.3 / 28 * whole
