"""CogVideoX: positions for pictures of any size, its schedule of noise, its rotary axes."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline

from doubles.small_families import STEP, SmallFamily, read_inside, relative_difference
from vditrack_export.families.cogvideox.transformer import CogVideoXPath, cogvideox_rotary_axes
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR

HEADS, HEAD_DIM = 3, 16
ABSOLUTE, ROTARY = SmallFamily("cogvideox", "absolute-positions"), SmallFamily("cogvideox")


@pytest.mark.parametrize(
    "shape",
    [(4, 3, 8, 12), (4, 2, 8, 10), (4, 1, 12, 6), (4, 5, 6, 16), (4, 2, 14, 18)],
    ids=str,
)
@pytest.mark.parametrize("small", [ABSOLUTE, ROTARY], ids=["absolute", "rotary"])
def test_positions_are_those_of_the_pipeline(small: SmallFamily, shape: LatentShape) -> None:
    _, frames, rows, columns = shape
    model, text = small.model(), small.prompt((5, 0))
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    # The encoder of the pipeline halves the picture three times.
    pipeline = SimpleNamespace(transformer=model, vae_scale_factor_spatial=8)
    angles = CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipeline, 8 * rows, 8 * columns, frames, torch.device("cpu")
    )
    cells = rows // 2 * (columns // 2)
    inside = read_inside(
        model.transformer_blocks,
        lambda: model(
            STEP.noised(latents).transpose(1, 2),
            text[None],
            torch.tensor([STEP.timestep]),
            image_rotary_emb=angles if small.shape.rotary else None,
        ),
        heads=HEADS,
        tokens=frames * cells,
        text_first=True,
    )
    for tensor in ("keys", "queries", "hidden"):
        cut = Cut(1, (0, 1, 2), tuple(range(HEAD_DIM)), 1, tensor)
        path = CogVideoXPath(model, shape, cut, STEP, text).eval()
        with torch.no_grad():
            found = path(latents).flatten(0, 2)
        expected = inside[tensor, True][1][-cells:].flatten(1)
        assert relative_difference(found, expected) <= MAX_RELATIVE_ERROR


def test_absolute_positions_rotate_nothing() -> None:
    inside = ABSOLUTE.inside((5, 0))
    assert torch.equal(inside["keys", True][0], inside["keys", False][0])


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
    expected = steps.add_noise(ROTARY.latents, seeded_noise(ROTARY.latents.shape, 3), last)
    assert torch.allclose(denoising.noised(ROTARY.latents), expected, atol=1e-6)


@pytest.mark.parametrize("low", [0.0, 0.15, 0.4])
def test_kept_channels_have_the_lowest_frequencies(low: float) -> None:
    model = ROTARY.model()
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
