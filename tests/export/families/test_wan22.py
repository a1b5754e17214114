"""Wan2.2-TI2V-5B: its autoencoder of patches and averages, its timesteps, its card."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file
from torch import Tensor

from doubles.commands import run_command
from doubles.flops import count_operations, count_weights
from doubles.pipeline_latents import wan_latents
from doubles.pipelines import make_text_encoder, make_tokenizer, moving_clip, run_export
from doubles.small_families import SmallFamily, read_inside
from vditrack import Tracker, VditrackError
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import load_card
from vditrack_export.card_changes import change_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.read_spec import Cut, Denoising
from vditrack_export.families.wan.transformer import WanPath
from vditrack_export.pipeline.backbone import load_backbone
from vditrack_export.pipeline.empty_prompt import empty_prompt
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR, encode_window, relative_error
from vditrack_export.pipeline.sessions import TorchSession
from vditrack_export.pipeline.steps import describe_latents
from vditrack_export.plan.cli import plan
from vditrack_export.plan.pipeline import reference_operations
from vditrack_export.plan.settings import Setting

pytestmark = pytest.mark.slow

CARD = load_card("wan2.2-ti2v-5b")
HEIGHT, WIDTH, FRAMES, CELL = 64, 96, 9, 32
SMALL = {
    "input.height": HEIGHT,
    "input.width": WIDTH,
    "input.frames": FRAMES,
    "input.described_frames": FRAMES,
    "transformer.layers": 3,
    "transformer.heads": 2,
    "transformer.head_dim": 32,
    "transformer.feed_forward": 48,
    "transformer.in_channels": 4,
    "transformer.out_channels": 4,
    "transformer.frequency_dim": 16,
    "transformer.text_dim": 16,
    "transformer.text_tokens": 7,
    "encoder.base_width": 8,
    "encoder.decoder_base_width": 12,
    "encoder.multiples": [1, 1, 2, 2],
    "encoder.residual_blocks": 1,
    "encoder.latent_channels": 4,
    "text_encoder.layers": 1,
    "text_encoder.width": 16,
    "text_encoder.heads": 2,
    "text_encoder.head_dim": 8,
    "text_encoder.feed_forward": 32,
    "text_encoder.vocabulary": 10,
    "feature.block": 1,
}
# What diffusers' conversion script for Wan2.2-TI2V-5B says and its class does not.
CONVERTED_TRANSFORMER = {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "in_channels": 48,
    "out_channels": 48,
    "num_layers": 30,
}
CONVERTED_AUTOENCODER = {
    "base_dim": 160,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "decoder_base_dim": 256,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}


def small_autoencoder() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=12,
        z_dim=4,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
        latents_mean=[0.1, -0.2, 0.3, 0.4],
        latents_std=[1.0, 2.0, 0.5, 1.0],
    ).eval()


def scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=5.0,
    )


# The card


def test_the_card_has_the_checkpoints_shapes():
    with torch.device("meta"):
        model = WanTransformer3DModel(**CONVERTED_TRANSFORMER)
        vae = AutoencoderKLWan(**CONVERTED_AUTOENCODER)
    for config, found in (
        (CARD.family.denoiser.config(), model.config),
        (CARD.family.encoder.config(), vae.config),
    ):
        assert {name: list_of(found[name]) for name in config} == config
    assert count_weights(model) == pytest.approx(5e9, rel=0.01)
    # Of Wan2.2_VAE.pth, as Wan-AI published it.
    shapes = {name: tuple(value.shape) for name, value in vae.state_dict().items()}
    assert len(shapes) == 196
    assert shapes["encoder.conv_in.weight"] == (160, 12, 3, 3, 3)
    assert shapes["decoder.conv_in.weight"] == (1024, 48, 3, 3, 3)
    assert shapes["quant_conv.weight"] == (96, 96, 1, 1, 1)
    assert vae._encode(torch.empty(1, 3, 9, 704, 1280, device="meta")).shape[1:] == (96, 3, 44, 80)


def list_of(value):
    return list(value) if isinstance(value, tuple) else value


def test_cells_of_32_pixels():
    assert CARD.encoder.stride * CARD.transformer.patch[1] == CELL
    assert CARD.encoder.temporal_strides == (4,)
    assert load_card("wan2.1-t2v-14b").encoder.temporal_strides == (1, 4)


def test_the_last_step_is_the_schedulers():
    stepping = scheduler()
    stepping.set_timesteps(50)
    feature = CARD.feature
    assert float(stepping.timesteps[49]) == feature.timestep
    assert float(stepping.sigmas[49]) == pytest.approx(feature.noise_level, abs=5e-5)
    assert feature.signal_level == pytest.approx(1 - feature.noise_level)


# One timestep a token


def test_the_pipelines_timesteps_a_token_are_the_paths_one():
    """What the pipeline of this checkpoint hands to its transformer in the last of 50 steps."""
    small = SmallFamily("wan", "latents-of-wan2.2")
    model, context = small.model(), small.prompt((1, 511))
    pipeline = WanPipeline(
        None, None, small_autoencoder(), scheduler(), model, expand_timesteps=True
    )
    pipeline.set_progress_bar_config(disable=True)
    handed = []
    hook = model.register_forward_pre_hook(
        lambda _model, _arguments, named: handed.append(named), with_kwargs=True
    )
    with hook:
        pipeline(
            prompt_embeds=context[None],
            height=HEIGHT,
            width=WIDTH,
            num_frames=FRAMES,
            num_inference_steps=50,
            guidance_scale=1.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )
    noised, timesteps = handed[49]["hidden_states"], handed[49]["timestep"]
    tokens = 3 * (HEIGHT // CELL) * (WIDTH // CELL)
    assert noised.shape == (1, 48, 3, HEIGHT // 16, WIDTH // 16)
    assert timesteps.tolist() == [[CARD.feature.timestep] * tokens]
    read = read_inside(
        model.blocks,
        lambda: model(noised, timesteps, context[None]),
        heads=3,
        tokens=tokens,
        text_first=False,
    )
    as_it_is = Denoising(CARD.feature.timestep, signal=1.0, noise=0.0, seed=0)
    for (tensor, rotated), blocks in read.items():
        for block, expected in enumerate(blocks):
            cut = Cut(block, (0, 1, 2), tuple(range(32)), 3, tensor, rotated)
            path = WanPath(model, tuple(noised.shape[1:]), cut, as_it_is, context).eval()
            with torch.no_grad():
                difference = (path(noised).reshape(expected.shape) - expected).abs()
            worst = (difference.amax((0, 2)) / expected.abs().amax((0, 2))).max()
            assert worst <= MAX_RELATIVE_ERROR, (tensor, rotated, block)


# From the pipeline's folder to a bundle


def write_card(path: Path, **changes: object) -> Path:
    """Write the real card with smaller numbers, by section and name."""
    wanted, section, lines = SMALL | changes, "", []
    text = (bundled_model().parent / f"{CARD.name}.toml").read_text()
    for line in text.splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        name = line.partition(" = ")[0]
        value = wanted.pop(f"{section}.{name}", None)
        lines.append(line if value is None else f"{name} = {value}")
    assert not wanted
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Path:
    return write_card(tmp_path_factory.mktemp("card") / "small.toml")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=48,
    )
    parts = make_tokenizer(), make_text_encoder("wan"), small_autoencoder(), scheduler(), model
    WanPipeline(*parts, expand_timesteps=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(card, checkpoint, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("bundle") / "bundle"
    done = run_export(card, "--weights", checkpoint, "-o", output, "--json")
    assert done.exception is None, done.exception
    return output, json.loads(done.stdout)


def test_what_was_exported(exported):
    told = exported[1]
    assert max(told["parity"].values()) <= MAX_RELATIVE_ERROR
    assert told["output"]["stride"] == CELL
    assert told["encoder"]["frames"] == 4
    assert told["encoder"]["caches"] > 0
    assert "encoder_start.onnx" in told["files"]


def frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)


def streamed(bundle: Path, clip: Tensor) -> Tensor:
    """Latents of a clip, one run of four frames after the other."""
    loaded = load_bundle(bundle)
    start, step = OnnxRuntimeSession(loaded.encoder_start), OnnxRuntimeSession(loaded.encoder)
    caches, latents = {}, []
    for group in clip.split([1, *[4] * (len(clip) // 4)]):
        graph = step if caches else start
        found = graph.run({"frames": group.numpy()} | caches)
        latents.append(torch.tensor(found.pop("latents")))
        caches = {name.removeprefix("next_"): value for name, value in found.items()}
    return torch.cat(latents, dim=2)


def loaded(folder):
    """Weights as they are saved: diffusers' own loader wants one more package for this class."""
    model = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(folder))
    shards = [load_file(path) for path in folder.glob("*.safetensors")]
    model.load_state_dict({name: value for shard in shards for name, value in shard.items()})
    return model.eval()


def test_the_bundle_gives_what_diffusers_gives(exported, card, checkpoint):
    bundle, told = exported
    vae = AutoencoderKLWan.from_pretrained(checkpoint / "vae").eval()
    model = loaded(checkpoint / "transformer")
    with torch.no_grad():
        expected = wan_latents(vae, frames(FRAMES), 4)
    assert expected.shape == (1, 4, 3, HEIGHT // 16, WIDTH // 16)
    latents = streamed(bundle, frames(FRAMES))
    relative_error("latents", latents.numpy(), expected)
    features = OnnxRuntimeSession(load_bundle(bundle).features)
    (descriptors,) = features.run({"latents": expected.numpy()}).values()
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    feature = CARD.feature
    noised = feature.signal_level * expected + feature.noise_level * noise
    timesteps = torch.full((1, 3 * 2 * 3), feature.timestep)
    context = empty_prompt(load_card(str(card)), Weights(checkpoint))
    read = read_inside(
        model.blocks,
        lambda: model(noised, timesteps, context[None]),
        heads=2,
        tokens=3 * 2 * 3,
        text_first=False,
    )
    keys = read["keys", True][1][:, 1, told["source"]["channels"]]
    assert descriptors.shape == (3, 2, 3, keys.shape[-1])
    relative_error("descriptors", descriptors, keys)


def test_a_stream_gives_the_latents_of_the_whole_clip(exported, checkpoint):
    vae, clip = AutoencoderKLWan.from_pretrained(checkpoint / "vae").eval(), frames(21)
    with torch.no_grad():
        expected = wan_latents(vae, clip, 4)
    relative_error("latents", streamed(exported[0], clip).numpy(), expected, allowed=1e-4)


def test_it_tracks(exported):
    tracks = Tracker.load(exported[0]).track(moving_clip(13), [[0, 40, 30], [3, 60, 40]])
    assert tracks.points.shape == (2, 13, 2)
    assert np.isfinite(tracks.points).all()


def test_random_weights_at_another_size(card):
    """By the modules that export writes: it compares them with the whole model."""
    changed = change_card(load_card(str(card)), size="64x32", frames=5, described=4)
    backbone, size = load_backbone(changed, Weights(None)), changed.input
    features = backbone.feature_graph(size)
    window = frames(5)[:, :32, :64].contiguous()
    latents = encode_window(backbone.encoder_form(size), TorchSession, window)
    vae = backbone.checkpoint.encoder
    with torch.no_grad():
        relative_error("latents", latents, wan_latents(vae, window, 4))
    found = describe_latents(TorchSession(features), latents, size)
    assert found.shape[:3] == (1, 1, 2)
    given = backbone.denoising, torch.from_numpy(latents), backbone.prompt
    read = backbone.card.family.denoiser.read_whole(
        backbone.checkpoint.transformer, backbone.cut(size), *given
    )
    relative_error("descriptors", found.reshape(read.shape), read)


def test_one_latent_a_frame_is_refused(card, checkpoint, tmp_path):
    for weights in (("--weights", checkpoint), ("--random-weights",)):
        done = run_export(card, *weights, "-o", tmp_path / "bundle", "--temporal-stride", "1")
        assert isinstance(done.exception, VditrackError), done.exception
        assert str(done.exception) == "--temporal-stride 1: card wan2.2-ti2v-5b allows 4."
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("is_residual", False, "is_residual False, the card True"),
        ("patch_size", None, "patch_size None, the card 2"),
        ("in_channels", 3, "in_channels 3, the card 12"),
        ("decoder_base_dim", None, "decoder_base_dim None, the card 12"),
    ],
)
def test_another_autoencoder_is_refused(card, checkpoint, tmp_path, name, value, complaint):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps(config | {name: value}))
    done = run_export(card, "--weights", folder, "-o", tmp_path / "bundle")
    assert isinstance(done.exception, VditrackError), done.exception
    assert complaint in str(done.exception)


# The plan


def test_the_plan_at_full_size():
    """On the meta device: the checkpoint's own sizes and picture, no memory."""
    setting = Setting(704, 1280, 9, 4)
    operations = reference_operations(CARD, setting)
    with torch.device("meta"):
        model = WanTransformer3DModel(**CONVERTED_TRANSFORMER).eval()
        vae = AutoencoderKLWan(**CONVERTED_AUTOENCODER).eval()
        latents, step = torch.empty(1, 48, 3, 44, 80), torch.tensor([96.0])
        clip, context = torch.empty(1, 3, 9, 704, 1280), torch.empty(1, 512, 4096)
    assert operations["transformer"] == 2 * count_operations(lambda: model(latents, step, context))
    assert operations["encoder"] == count_operations(lambda: vae._encode(clip))
    assert operations["decoder"] == count_operations(lambda: vae._decode(latents))


@pytest.mark.slow
def test_the_plan(monkeypatch):
    # Few of the candidates, of which all have the same strides and cells.
    monkeypatch.setattr("vditrack_export.plan.candidates._SCALES", (1.0, 0.3))
    monkeypatch.setattr("vditrack_export.plan.candidates._WINDOWS", (5, 9))
    told = json.loads(run_command(plan, CARD.name, "--device", "orin-agx", "--json").stdout)
    assert told["tokens"] == 6160
    settings = [run["setting"] for run in [*told["candidates"], told["bundle"]]]
    assert {setting["temporal_stride"] for setting in settings} == {4}
    assert all(side % CELL == 0 for size in settings for side in (size["height"], size["width"]))
