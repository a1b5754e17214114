"""SkyReels-V2: diffusion forcing with equal timesteps, its pipeline, its card, what is refused."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)

from doubles.small_families import STEP, SmallFamily, read_inside, relative_difference
from vditrack.errors import InputError
from vditrack_export.card import load_card
from vditrack_export.checkpoints.checkpoint import open_checkpoint
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.read_spec import Cut
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR

FRAMES, TOKENS = 3, 3 * 4 * 6


@pytest.fixture(scope="module")
def small() -> SmallFamily:
    return SmallFamily("skyreels_v2")


def scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )


def test_the_pipeline_forces_each_frame_with_the_cards_step(small: SmallFamily) -> None:
    """What the pipeline hands to the transformer in the last of 50 steps, and what is read then."""
    model, text, handed = small.model(), small.prompt((5, 0)), []
    hook = model.register_forward_pre_hook(
        lambda _model, _given, named: handed.append(named), with_kwargs=True
    )
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    pipeline = SkyReelsV2DiffusionForcingPipeline(None, None, model, vae, scheduler())
    pipeline.set_progress_bar_config(disable=True)
    with hook:
        pipeline(
            prompt=None,
            prompt_embeds=text[None],
            height=64,
            width=96,
            num_frames=9,
            base_num_frames=9,
            num_inference_steps=50,
            guidance_scale=1.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )
    feature, last = load_card("skyreels-v2-df-1.3b").feature, handed[49]
    assert last["timestep"].tolist() == [[feature.timestep] * FRAMES]
    assert last["fps"] == [1]
    stepping = scheduler()
    stepping.set_timesteps(50)
    assert float(stepping.sigmas[49]) == pytest.approx(feature.noise_level, abs=5e-5)
    given = {
        "hidden_states": STEP.noised(small.latents),
        "timestep": torch.full((1, FRAMES), STEP.timestep),
        "encoder_hidden_states": text[None],
    }
    inside = read_inside(
        model.blocks,
        lambda: model(**last | given),
        heads=small.shape.heads,
        tokens=TOKENS,
        text_first=False,
    )
    for (tensor, rotated), blocks in inside.items():
        for block, read in enumerate(blocks):
            cut = Cut(block, (0, 1, 2), tuple(range(32)), FRAMES, tensor, rotated)
            found = small.descriptors(cut, (5, 0)).flatten(0, 2)
            assert relative_difference(found, read.flatten(1)) <= MAX_RELATIVE_ERROR


def test_the_frame_rate_changes_what_is_read(small: SmallFamily) -> None:
    slow = SmallFamily("skyreels_v2", "slow")
    cut = Cut(1, (0,), tuple(range(32)), FRAMES)
    found = slow.descriptors(cut, (5, 0))
    assert relative_difference(found, small.descriptors(cut, (5, 0))) > 100 * MAX_RELATIVE_ERROR


def test_the_cards_shapes() -> None:
    """diffusers' conversion script has these where the class has other defaults."""
    card = load_card("skyreels-v2-df-1.3b")
    config = card.family.denoiser.config()
    with torch.device("meta"):
        model = SkyReelsV2Transformer3DModel(
            num_attention_heads=12, ffn_dim=8960, num_layers=30, inject_sample_info=True
        )
    found = {name: model.config[name] for name in config}
    assert found | {"patch_size": list(found["patch_size"])} == config
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.4e9, rel=0.05)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"num_frame_per_block": 3}, "causal between blocks of frames"),
        ({"image_dim": 4}, "wants an image"),
        ({"inject_sample_info": False}, "inject_sample_info False, the card True"),
    ],
)
def test_other_models_are_refused(
    small: SmallFamily, tmp_path: Path, config: dict[str, object], complaint: str
) -> None:
    shapes = small.denoiser.config() | config
    with torch.no_grad():
        SkyReelsV2Transformer3DModel(**shapes).save_pretrained(tmp_path / "transformer")
    checkpoint, denoiser = open_checkpoint(Weights(tmp_path)), small.denoiser
    with pytest.raises(InputError, match=complaint):
        denoiser.load(
            checkpoint.open("transformer", denoiser.model_class, denoiser.config()), 3, small.grid
        )
