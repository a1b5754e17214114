"""Wan: merged padding in double precision, timesteps by token, schedulers, rotary frequencies."""

from copy import deepcopy

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from doubles.small_families import (
    READINGS,
    STEP,
    Reading,
    SmallFamily,
    read_inside,
    relative_difference,
)
from vditrack.errors import InputError
from vditrack_export.families.read_spec import Cut, Denoising, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels, wan_rotary_axes
from vditrack_export.families.wan import transformer as wan
from vditrack_export.families.wan.transformer import WanPath
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR

SEED = 3


@pytest.fixture(scope="module")
def small() -> SmallFamily:
    return SmallFamily("wan")


@pytest.fixture(scope="module")
def in_double(small: SmallFamily) -> dict[int, dict[Reading, list[Tensor]]]:
    """Behind padded prompts: single precision loses 1e-6 where it adds 511 equal exponentials."""
    model = deepcopy(small.model()).double()
    noised = STEP.noised(small.latents).double()
    return {
        real: read_inside(
            model.blocks,
            lambda real=real: model(
                noised,
                torch.tensor([STEP.timestep]),
                small.prompt((real, 512 - real)).double()[None],
            ),
            heads=3,
            tokens=72,
            text_first=False,
        )
        for real in (1, 7)
    }


@pytest.mark.parametrize("real", [1, 7])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_padding_is_merged_exactly(
    small: SmallFamily,
    in_double: dict[int, dict[Reading, list[Tensor]]],
    monkeypatch: pytest.MonkeyPatch,
    reading: Reading,
    real: int,
) -> None:
    """The unmodified model is given all 512 tokens, of which those after the first are zeros."""
    prompt = (real, 512 - real)
    for block in range(small.shape.layers):
        cut = Cut(block, (0, 1, 2), tuple(range(32)), 3, *reading)
        merged = small.path(cut, prompt)
        with monkeypatch.context() as patched:
            patched.setattr(wan, "merge_tokens", lambda every: (every, torch.zeros(len(every))))
            apart = small.path(cut, prompt)
        with torch.no_grad():
            found, unmerged = merged(small.latents), apart(small.latents)
        expected = in_double[real][reading][block].flatten(1)
        assert relative_difference(found.flatten(0, 2), expected) <= 1e-6
        assert relative_difference(found, unmerged) <= 3e-6
        # Keys and values of what was merged are no constants any more; the logarithms are.
        whole = len(merged.blocks)
        gone = 2 * (512 - real - 1) * small.shape.width * whole
        added = real + 1 if whole else 0
        assert bytes_of(apart) - bytes_of(merged) == 4 * (gone - added)


def bytes_of(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def test_a_timestep_for_every_token(small: SmallFamily) -> None:
    """Wan2.2-TI2V: from text alone all timesteps are equal, and the path takes the one."""
    model, context = small.model(), small.prompt((1, 511))
    noised, tokens = STEP.noised(small.latents), 3 * 4 * 6
    expanded = torch.full((1, tokens), STEP.timestep)

    def inside() -> dict[Reading, list[Tensor]]:
        run = lambda: model(noised, expanded, context[None])  # noqa: E731
        return read_inside(model.blocks, run, heads=3, tokens=tokens, text_first=False)

    found = inside()
    for (tensor, rotated), blocks in found.items():
        for block, expected in enumerate(blocks):
            cut = Cut(block, (0, 1, 2), tuple(range(32)), 3, tensor, rotated)
            path = WanPath(model, small.latent_shape, cut, STEP, context).eval()
            with torch.no_grad():
                read = path(small.latents).reshape(expected.shape)
            difference = (read - expected).abs().amax((0, 2)) / expected.abs().amax((0, 2))
            assert difference.max() <= MAX_RELATIVE_ERROR
    # From a clean first frame, whose timestep is 0, other features would follow.
    expanded[:, : tokens // 3] = 0
    clean_first = inside()
    for reading in READINGS:
        assert relative_difference(clean_first[reading][0], found[reading][0]) > 1e-2


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
def test_noise_is_mixed_as_the_schedulers_do(small: SmallFamily, scheduler: str, step: int) -> None:
    noised, timestep, denoising = scheduled(scheduler, step, small.latents)
    assert torch.allclose(denoising.noised(small.latents), noised, atol=1e-6)
    # UniPC rounds to whole timesteps.
    assert abs(float(timestep) - 1000 * denoising.noise) < (1 if scheduler == "unipc" else 1e-3)


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
