"""Paths cut out of UNets give what the unmodified diffusers models compute on the way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    I2VGenXLPipeline,
    I2VGenXLUNet,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)
from msgspec import structs
from torch import Tensor, nn

from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import load_card
from vditrack_export.families.image_input import FramesToLatents
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.unet.autoencoder import KlImageEncoder
from vditrack_export.families.unet.i2vgen import I2VGenPath
from vditrack_export.families.unet.stable_diffusion import ImageUNetPath
from vditrack_export.families.unet.stable_video import StableVideoConditions, StableVideoPath
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR, relative_error

pytestmark = pytest.mark.slow

WIDTHS, TEXT_DIM, FPS, SCALING = (32, 64, 96, 128), 32, 12.0, 0.2
DENOISING = Denoising(timestep=51.0, signal=0.9, noise=math.sqrt(1 - 0.9**2), seed=3)
CONDITIONS = StableVideoConditions(
    fps=FPS, motion_bucket=100.0, noise_augmentation=0.1, scaling_factor=SCALING
)
# The pictures of the first four are halved three times, from sides that are not even every time.
SHAPES: dict[str, LatentShape] = {
    "sd": (4, 1, 15, 18),
    "i2vgen": (4, 5, 15, 18),
    "svd": (4, 5, 15, 18),
    "adm": (3, 2, 16, 24),
}
LAYERS = {name: 3 * len(WIDTHS) for name in SHAPES}


def kinds(down: str, up: str, attending: str, levels: int) -> dict[str, list[str]]:
    """Blocks of a UNet whose levels attend, but for the deepest."""
    return {
        "down_block_types": [f"{attending}{down}"] * (levels - 1) + [down],
        "up_block_types": [up] + [f"{attending}{up}"] * (levels - 1),
    }


def _stable_diffusion(widths: Sequence[int], blocks: int) -> nn.Module:
    return UNet2DConditionModel(
        block_out_channels=widths,
        layers_per_block=blocks,
        attention_head_dim=[2, 2, 4, 4][: len(widths)],
        cross_attention_dim=TEXT_DIM,
        use_linear_projection=True,
        **kinds("DownBlock2D", "UpBlock2D", "CrossAttn", len(widths)),
    )


def _adm(widths: Sequence[int], blocks: int) -> nn.Module:
    half = len(widths) // 2
    return UNet2DModel(
        block_out_channels=widths,
        layers_per_block=blocks,
        out_channels=6,
        attention_head_dim=16,
        down_block_types=["ResnetDownsampleBlock2D"] * half + ["AttnDownBlock2D"] * half,
        up_block_types=["AttnUpBlock2D"] * half + ["ResnetUpsampleBlock2D"] * half,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
    )


def _i2vgen(widths: Sequence[int], blocks: int) -> nn.Module:
    return I2VGenXLUNet(
        block_out_channels=widths,
        layers_per_block=blocks,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=16,
        **kinds("DownBlock3D", "UpBlock3D", "CrossAttn", len(widths)),
    )


def _stable_video(widths: Sequence[int], blocks: int) -> nn.Module:
    return UNetSpatioTemporalConditionModel(
        block_out_channels=widths,
        layers_per_block=blocks,
        num_attention_heads=(2, 2, 4, 4)[: len(widths)],
        **kinds("DownBlockSpatioTemporal", "UpBlockSpatioTemporal", "CrossAttn", len(widths)),
        cross_attention_dim=TEXT_DIM,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
    )


MAKERS = {"sd": _stable_diffusion, "adm": _adm, "i2vgen": _i2vgen, "svd": _stable_video}


@cache
def unet(name: str, widths: tuple[int, ...] = WIDTHS, blocks: int = 2) -> Any:
    torch.manual_seed(0)
    model = MAKERS[name](widths, blocks).eval()
    # Some layers start as zeros, norms as ones: they would hide a weight that is left out.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@cache
def latents(shape: LatentShape) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


@cache
def prompt(name: str) -> Tensor:
    tokens = {"sd": 7, "i2vgen": 7, "svd": 1, "adm": 0}[name]
    return torch.randn(tokens, TEXT_DIM, generator=torch.Generator().manual_seed(2))


def path_of(
    name: str, layer: int, shape: LatentShape, described: int = 0, model: nn.Module | None = None
) -> nn.Module:
    cut = Cut(layer, (0,), (), described or shape[1], "hidden")
    given = model or unet(name), shape, cut, DENOISING, prompt(name)
    if name == "i2vgen":
        return I2VGenPath(*given, fps=FPS).eval()
    if name == "svd":
        return StableVideoPath(*given, CONDITIONS).eval()
    return ImageUNetPath(*given).eval()


# The whole models, called as their pipelines call them.


def run_whole(name: str, model: Any, clean: Tensor) -> None:
    noised = DENOISING.signal * clean + DENOISING.noise * seeded_noise(clean.shape, DENOISING.seed)
    runs = {"sd": _run_sd, "adm": _run_adm, "i2vgen": _run_i2vgen, "svd": _run_svd}
    runs[name](model, clean, noised)


def _run_sd(model: Any, _clean: Tensor, noised: Tensor) -> None:
    for frame in noised[0].transpose(0, 1):
        model(frame[None], 51, encoder_hidden_states=prompt("sd")[None])


def _run_adm(model: Any, _clean: Tensor, noised: Tensor) -> None:
    for frame in noised[0].transpose(0, 1):
        model(frame[None], 51)


def _run_i2vgen(model: Any, clean: Tensor, noised: Tensor) -> None:
    first = clean[:, :, 0]
    vae = SimpleNamespace(
        encode=lambda image: SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: image)),
        config=SimpleNamespace(scaling_factor=SCALING),
    )
    pipeline = SimpleNamespace(vae=vae, do_classifier_free_guidance=False)
    images = I2VGenXLPipeline.prepare_image_latents(
        pipeline, first / SCALING, "cpu", noised.shape[2], 1
    )
    model(
        noised,
        51,
        fps=torch.tensor([FPS]),
        image_latents=images,
        image_embeddings=torch.zeros(1, TEXT_DIM),
        encoder_hidden_states=prompt("i2vgen")[None],
    )


def _run_svd(model: Any, clean: Tensor, noised: Tensor) -> None:
    # The pipeline's mode of the first frame is not scaled; it has one less than the rate.
    mode = clean[:, :, 0] / SCALING
    images = mode.unsqueeze(1).repeat(1, noised.shape[2], 1, 1, 1)
    pipeline = SimpleNamespace(unet=model)
    told = StableVideoDiffusionPipeline._get_add_time_ids(
        pipeline, FPS - 1, 100.0, 0.1, torch.float32, 1, 1, False
    )
    model(
        torch.cat([noised.transpose(1, 2), images], dim=2),
        torch.tensor(51.0),
        encoder_hidden_states=prompt("svd")[None],
        added_time_ids=told,
    )


@cache
def layers_of(name: str, shape: LatentShape, model: Any = None) -> list[Tensor]:
    """What every layer of the decoder puts out, [F, rows, columns, D]."""
    found: list[list[Tensor]] = []

    def listen(module: nn.Module) -> None:
        kept: list[Tensor] = []
        found.append(kept)
        module.register_forward_hook(
            lambda _module, _inputs, output: kept.append(
                output if isinstance(output, Tensor) else output[0]
            )
        )

    model = model or unet(name)
    for block in model.up_blocks:
        last = next(
            getattr(block, part)
            for part in ("temp_attentions", "attentions", "temp_convs", "resnets")
            if hasattr(block, part)
        )
        upsampled = list(block.upsamplers or [])
        for module in [*last[: len(last) - len(upsampled)], *upsampled]:
            listen(module)
    with torch.no_grad():
        run_whole(name, model, latents(shape))
    for module in model.modules():
        module._forward_hooks.clear()
    return [torch.cat(kept).permute(0, 2, 3, 1) for kept in found]


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", SHAPES)
def test_every_layer_of_the_decoder(name: str) -> None:
    shape = SHAPES[name]
    expected = layers_of(name, shape)
    assert len(expected) == LAYERS[name]
    for layer, hidden in enumerate(expected):
        with torch.no_grad():
            found = path_of(name, layer, shape)(latents(shape))
        assert error(found, hidden) <= MAX_RELATIVE_ERROR, layer


@pytest.mark.parametrize("name", SHAPES)
def test_a_card_says_which_size_a_layer_has(name: str) -> None:
    card = load_card(
        {
            "sd": "stable-diffusion-2.1",
            "adm": "adm-imagenet-256",
            "i2vgen": "i2vgen-xl",
            "svd": "stable-video-diffusion",
        }[name]
    )
    given = {"widths": WIDTHS} | ({"attention": (False,) * 4} if name == "adm" else {})
    shape, (rows, columns) = structs.replace(card.transformer, **given), (16, 24)
    expected = layers_of(name, (*SHAPES[name][:2], rows, columns))
    assert shape.layers == len(expected)
    for layer, hidden in enumerate(expected):
        assert hidden.shape[3] == shape.width(layer)
        assert hidden.shape[1:3] == (rows // shape.cell(layer), columns // shape.cell(layer))


@pytest.mark.parametrize("name", ["i2vgen", "svd"])
def test_windows_of_other_lengths(name: str) -> None:
    """Also a single frame, which has no places after it."""
    for frames in (1, 2, 16):
        shape = (4, frames, 8, 8)
        with torch.no_grad():
            found = path_of(name, 8, shape)(latents(shape))
        assert error(found, layers_of(name, shape)[8]) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("name", SHAPES)
def test_the_newest_frames_alone(name: str) -> None:
    shape = (*SHAPES[name][:1], 3, 8, 8)
    with torch.no_grad():
        found = path_of(name, 8, shape, described=2)(latents(shape))
    assert error(found, layers_of(name, shape)[8][1:]) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("name", ["i2vgen", "svd"])
def test_motion_features_see_the_whole_window(name: str) -> None:
    """What happens in the last frame changes the descriptors of the first."""
    shape = (4, 4, 8, 8)
    changed = latents(shape).clone()
    changed[:, :, 3] += 1
    path = path_of(name, 8, shape)
    with torch.no_grad():
        assert error(path(changed)[0], path(latents(shape))[0]) > 1e-3


@pytest.mark.parametrize("name", ["sd", "adm"])
def test_appearance_features_see_one_frame(name: str) -> None:
    shape = (*SHAPES[name][:1], 3, 8, 8)
    changed = latents(shape).clone()
    changed[:, :, 2] += 1
    path = path_of(name, 8, shape)
    with torch.no_grad():
        assert torch.equal(path(changed)[:2], path(latents(shape))[:2])


# Noise


@dataclass(frozen=True)
class Schedule:
    """A checkpoint's scheduler, and what its card says of one of its steps."""

    card: str
    step: int
    scheduler: Any


_STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULES = [
    Schedule(
        "i2vgen-xl",
        300,
        DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            beta_start=0.0001,
            beta_end=0.02,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
        ),
    ),
    Schedule("stable-diffusion-2.1", 51, DDIMScheduler(**_STABLE, prediction_type="v_prediction")),
    Schedule(
        "adm-imagenet-256",
        51,
        DDPMScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    ),
]


def denoising_of(card: str) -> Denoising:
    feature = load_card(card).feature
    return Denoising(feature.timestep, feature.signal_level, feature.noise_level, 0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.card)
def test_noise_is_what_the_scheduler_adds(schedule: Schedule) -> None:
    clean = latents(SHAPES["i2vgen"])
    added = schedule.scheduler.add_noise(
        clean, seeded_noise(clean.shape, 0), torch.tensor([schedule.step])
    )
    denoising = denoising_of(schedule.card)
    assert torch.allclose(denoising.noised(clean), added, atol=1e-6)
    assert denoising.timestep == schedule.step


def test_noise_of_stable_video_diffusion() -> None:
    """Added as the scheduler adds it, and scaled as it scales what the model sees."""
    scheduler = EulerDiscreteScheduler(
        **_STABLE,
        prediction_type="v_prediction",
        interpolation_type="linear",
        timestep_type="continuous",
        timestep_spacing="linspace",
        use_karras_sigmas=False,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    # All 1000 steps, the noisiest first.
    scheduler.set_timesteps(1000)
    timestep = scheduler.timesteps[999 - 300]
    clean = latents(SHAPES["svd"])
    added = scheduler.add_noise(clean, seeded_noise(clean.shape, 0), timestep[None])
    seen = scheduler.scale_model_input(added, timestep)
    denoising = denoising_of("stable-video-diffusion")
    assert torch.allclose(denoising.noised(clean), seen, atol=1e-6)
    assert denoising.timestep == pytest.approx(float(timestep), abs=1e-7)


# Encoders


@pytest.mark.parametrize("kind", [AutoencoderKL, AutoencoderKLTemporalDecoder])
def test_the_encoder_is_the_autoencoders(kind: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    more = {"up_block_types": ["UpDecoderBlock2D"] * 2} if kind is AutoencoderKL else {}
    vae = kind(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D"] * 2,
        layers_per_block=1,
        scaling_factor=SCALING,
        **more,
    ).eval()
    frames = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = vae.encode(images).latent_dist.mode().transpose(0, 1)[None] * SCALING
    encoder, path = FramesToLatents(KlImageEncoder(vae)).eval(), tmp_path / "encoder.onnx"
    with torch.no_grad():
        assert error(encoder(frames), expected) <= 1e-6
    export_graph(encoder, {"frames": frames}, path, outputs=["latents"])
    found = OnnxRuntimeSession(path).run({"frames": frames.numpy()})["latents"]
    assert relative_error(path, found, expected) <= MAX_RELATIVE_ERROR


# Graphs


@pytest.mark.parametrize("rows_columns", [(15, 18), (32, 56), (40, 72)])
def test_the_first_frame_is_pooled_as_the_model_does(rows_columns: tuple[int, int]) -> None:
    """Adaptively to 32 x 32 places, from fewer and from more."""
    first = torch.randn(1, 4, *rows_columns, generator=torch.Generator().manual_seed(4))
    path = path_of("i2vgen", 0, (4, 1, *rows_columns))
    with torch.no_grad():
        expected = unet("i2vgen").image_latents_context_embedding(first).flatten(2)[0].T
        assert error(path.first_tokens(first), expected) <= MAX_RELATIVE_ERROR


GRAPH_SHAPES: dict[str, LatentShape] = {
    "sd": (4, 1, 7, 10),
    "i2vgen": (4, 3, 7, 10),
    "svd": (4, 3, 7, 10),
    "adm": (3, 1, 8, 10),
}


def small(name: str) -> nn.Module:
    """With an upper level that no path into the lower one's end reaches."""
    return unet(name, (32, 64), 1)


@pytest.mark.parametrize("name", SHAPES)
def test_graphs(name: str, tmp_path: Path) -> None:
    """They give what the whole model does, and hold nothing of timestep, prompt or later layers."""
    path, shape = tmp_path / "features.onnx", GRAPH_SHAPES[name]
    module = path_of(name, 1, shape, model=small(name))
    export_graph(module, {"latents": latents(shape)}, path, outputs=["descriptors"])
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()
    (found,) = OnnxRuntimeSession(path).run({"latents": latents(shape).numpy()}).values()
    expected = layers_of(name, shape, small(name))[1]
    assert found.shape == expected.shape
    assert relative_error(path, found, expected) <= MAX_RELATIVE_ERROR
    graph = onnx.load(path).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"ScatterND", "Sin", "Cos", "Shape", "If", "Loop"}
    assert "MultiHeadAttention" in operators
    gone = ("up_blocks.1.", "conv_out.", "conv_norm_out.", "add_embedding.", "context_embedding.")
    inside = ("time_emb", "fps_emb", "time_pos_embed")
    whole, kept = (
        sum(
            weights.numel()
            for part, weights in small(name).named_parameters()
            if every or not (part.startswith(gone) or any(word in part for word in inside))
        )
        for every in (True, False)
    )
    constants = sum(math.prod(weights.dims) for weights in graph.initializer)
    # Noise, and keys and values of the prompt.
    assert constants <= kept + math.prod(shape) + 0.1 * (whole - kept)
