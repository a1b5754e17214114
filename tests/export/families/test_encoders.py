"""Encoders give the latents that the unmodified diffusers autoencoders and pipelines compute."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXVideoToVideoPipeline,
    Cosmos2VideoToWorldPipeline,
)
from torch import Tensor, nn

from doubles.pipeline_latents import pipeline_latents, prepared, wan_latents
from vditrack.errors import InputError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.families.cogvideox.autoencoder import (
    CogVideoXClipEncoder,
    CogVideoXStreamEncoder,
)
from vditrack_export.families.wan.autoencoder import WanClipEncoder, WanStreamEncoder
from vditrack_export.pipeline.onnx_export import export_graph

pytestmark = pytest.mark.slow

MAX_RELATIVE_ERROR = 1e-5
HEIGHT, WIDTH, LATENTS = 32, 48, 4
WAN, WAN_5B = {}, {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@cache
def wan(five_billion: bool = False) -> AutoencoderKLWan:
    return random(
        AutoencoderKLWan,
        base_dim=8,
        z_dim=LATENTS,
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, -0.4],
        latents_std=[0.5, 1.0, 2.0, 4.0],
        **(WAN_5B if five_billion else WAN),
    )


@cache
def cogvideox() -> AutoencoderKLCogVideoX:
    return random(
        AutoencoderKLCogVideoX,
        block_out_channels=(8, 16, 16, 32),
        latent_channels=LATENTS,
        layers_per_block=1,
        norm_num_groups=4,
    )


def random(model: type, **config):
    torch.manual_seed(0)
    vae = model(**config).eval()
    # Norms and biases start as ones and zeros, and would hide a weight that is left out.
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return vae


@cache
def frames(count: int) -> Tensor:
    shape = (count, HEIGHT, WIDTH, 3)
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def cogvideox_latents(vae: AutoencoderKLCogVideoX, clip: Tensor) -> Tensor:
    moments = vae.encode(prepared(clip)).latent_dist.parameters
    latents = pipeline_latents(CogVideoXVideoToVideoPipeline, vae, moments, clip)
    return latents.transpose(1, 2)


def without_temporal_downsampling(batch: int) -> AutoencoderKLCogVideoX:
    vae = deepcopy(cogvideox())
    vae.num_sample_frames_batch_size = batch
    for block in vae.encoder.down_blocks:
        for sampler in block.downsamplers or ():
            sampler.compress_time = False
    return vae


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= MAX_RELATIVE_ERROR * expected.abs().max()


def streamed(
    encoder: nn.Module, clip: Tensor, groups: Sequence[int], caches: Sequence[Tensor] = ()
) -> Tensor:
    latents = []
    for group in clip.split(list(groups)):
        encoded, *caches = encoder(group, *caches)
        latents.append(encoded)
    return torch.cat(latents, dim=2)


@pytest.mark.parametrize("five_billion", [False, True])
@pytest.mark.parametrize("count", [1, 5, 13])
def test_native_wan_latents_of_a_clip(count: int, five_billion: bool) -> None:
    vae, clip = wan(five_billion), frames(count)
    latents = WanClipEncoder(vae, 4)(clip)
    side = 16 if five_billion else 8
    assert latents.shape == (1, LATENTS, 1 + count // 4, HEIGHT // side, WIDTH // side)
    assert_close(latents, wan_latents(vae, clip, 4))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_frame_wise_wan_latents_of_a_clip(count: int) -> None:
    latents = WanClipEncoder(wan(), 1)(frames(count))
    assert latents.shape == (1, LATENTS, count, HEIGHT // 8, WIDTH // 8)
    assert_close(latents, wan_latents(wan(), frames(count), 1))


@pytest.mark.parametrize("five_billion", [False, True])
@pytest.mark.parametrize("groups", [(1, 4, 4, 4, 4, 4), (5, 8, 4, 4)])
def test_native_wan_groups_give_the_latents_of_the_clip(
    groups: tuple[int, ...], five_billion: bool
) -> None:
    vae = wan(five_billion)
    latents = streamed(WanStreamEncoder(vae, 4), frames(21), groups)
    assert_close(latents, wan_latents(vae, frames(21), 4))


@pytest.mark.parametrize("groups", [(1,) * 7, (2, 1, 4)])
def test_frame_wise_wan_groups_give_the_latents_of_the_clip(groups: tuple[int, ...]) -> None:
    """From zeros as from no caches: diffusers pads a clip's beginning with zeros in every layer."""
    encoder, expected = WanStreamEncoder(wan(), 1), wan_latents(wan(), frames(7), 1)
    assert_close(streamed(encoder, frames(7), groups), expected)
    zeros = [torch.zeros_like(cached) for cached in encoder(frames(1))[1:]]
    assert_close(streamed(encoder, frames(7), groups, zeros), expected)


def test_wan_caches_keep_their_shapes() -> None:
    for stride, step in ((1, 1), (4, 4)):
        encoder = WanStreamEncoder(wan(), stride)
        _, *caches = encoder(frames(1))
        _, *after = encoder(frames(step), *caches)
        assert [cached.shape for cached in after] == [cached.shape for cached in caches]


def test_cosmos_normalises_as_wan_does() -> None:
    """Cosmos-Predict2 has Wan's autoencoder; its pipeline sets sigma_data to 1."""
    moments = wan().encode(prepared(frames(5))).latent_dist.parameters
    encoded = SimpleNamespace(latents=moments.chunk(2, dim=1)[0])
    stage = SimpleNamespace(
        vae=SimpleNamespace(config=wan().config, encode=lambda _: encoded),
        scheduler=SimpleNamespace(config=SimpleNamespace(sigma_data=1.0, sigma_max=1.0)),
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=8,
    )
    _, conditioning, *_ = Cosmos2VideoToWorldPipeline.prepare_latents(
        stage, prepared(frames(5)), 1, LATENTS, HEIGHT, WIDTH, 5, dtype=torch.float32
    )
    assert_close(WanClipEncoder(wan(), 4)(frames(5)), conditioning)


def test_wan_looks_back_only() -> None:
    changed = frames(9).clone()
    changed[5] = 255 - changed[5]
    for stride, first in ((1, 5), (4, 2)):
        encoder = WanClipEncoder(wan(), stride)
        moved = (encoder(changed) - encoder(frames(9))).abs().amax((0, 1, 3, 4))
        assert (moved[:first] == 0).all()
        assert (moved[first:] > 0).all()


@pytest.mark.parametrize("count", [1, 5, 8, 9, 13, 25])
def test_native_cogvideox_latents_of_a_clip(count: int) -> None:
    latents = CogVideoXClipEncoder(cogvideox(), 4)(frames(count))
    assert latents.shape == (1, LATENTS, -(-count // 4), HEIGHT // 8, WIDTH // 8)
    assert_close(latents, cogvideox_latents(cogvideox(), frames(count)))


@pytest.mark.parametrize("count", [1, 9, 17])
def test_frame_wise_cogvideox_latents_of_a_clip(count: int) -> None:
    latents = CogVideoXClipEncoder(cogvideox(), 1)(frames(count))
    one_piece = without_temporal_downsampling(batch=count)
    assert_close(latents, cogvideox_latents(one_piece, frames(count)))


def test_cogvideox_batches_give_the_latents_of_the_clip() -> None:
    latents = streamed(CogVideoXStreamEncoder(cogvideox(), 4), frames(25), (9, 8, 8))
    assert_close(latents, cogvideox_latents(cogvideox(), frames(25)))
    latents = streamed(CogVideoXStreamEncoder(cogvideox(), 1), frames(25), (9, 8, 8))
    expected = cogvideox_latents(without_temporal_downsampling(batch=8), frames(25))
    assert_close(latents, expected)


def test_cogvideox_looks_ahead_within_a_batch() -> None:
    """Its group norms see all frames of a batch, and those of no other batch."""
    changed = frames(25).clone()
    changed[16] = 255 - changed[16]
    encoder = CogVideoXClipEncoder(cogvideox(), 4)
    moved = (encoder(changed) - encoder(frames(25))).abs().amax((0, 1, 3, 4))
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 0).all()


def test_weights_are_shared() -> None:
    for vae, encoder in (
        (wan(), WanClipEncoder(wan(), 4)),
        (cogvideox(), CogVideoXClipEncoder(cogvideox(), 4)),
    ):
        owned = {id(parameter) for parameter in vae.parameters()}
        assert {id(parameter) for parameter in encoder.parameters()} <= owned


def test_a_longer_clip_makes_no_larger_graph() -> None:
    sizes = [
        len(torch.export.export(WanClipEncoder(wan(), 4), (frames(count),)).graph.nodes)
        for count in (5, 13)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_frames_that_would_be_dropped_are_refused(count: int) -> None:
    encoder = WanStreamEncoder(wan(), 4)
    with pytest.raises(InputError, match="do not make whole latents"):
        encoder(frames(count))
    _, *caches = encoder(frames(1))
    with pytest.raises(InputError, match="do not make whole latents"):
        encoder(frames(count + 3), *caches)


def test_unfit_autoencoders_are_refused() -> None:
    with pytest.raises(InputError, match="stride 2"):
        WanClipEncoder(wan(), 2)
    with pytest.raises(InputError, match="no latent a frame"):
        WanClipEncoder(wan(five_billion=True), 1)
    with pytest.raises(InputError, match="every 2 frames"):
        WanClipEncoder(AutoencoderKLWan(base_dim=2, temperal_downsample=[False, False, True]), 1)
    with pytest.raises(InputError, match="stride 2"):
        CogVideoXClipEncoder(cogvideox(), 2)
    small = {"block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 1}
    with pytest.raises(InputError, match="every 8 frames"):
        CogVideoXClipEncoder(AutoencoderKLCogVideoX(**small, temporal_compression_ratio=8), 4)
    with pytest.raises(InputError, match="quant_conv"):
        CogVideoXClipEncoder(AutoencoderKLCogVideoX(**small, use_quant_conv=True), 4)


CLIPS = {
    "wan native": lambda: (WanClipEncoder(wan(), 4), wan_latents(wan(), frames(9), 4)),
    "wan frame-wise": lambda: (WanClipEncoder(wan(), 1), wan_latents(wan(), frames(9), 1)),
    "cogvideox native": lambda: (
        CogVideoXClipEncoder(cogvideox(), 4),
        cogvideox_latents(cogvideox(), frames(9)),
    ),
    "cogvideox frame-wise": lambda: (
        CogVideoXClipEncoder(cogvideox(), 1),
        cogvideox_latents(without_temporal_downsampling(batch=9), frames(9)),
    ),
}


@pytest.mark.parametrize("form", CLIPS)
def test_graph_of_a_clip(form: str, tmp_path: Path) -> None:
    encoder, expected = CLIPS[form]()
    path = tmp_path / "encoder.onnx"
    export_graph(encoder, {"frames": frames(9)}, path, outputs=["latents"])
    found = OnnxRuntimeSession(path).run({"frames": frames(9).numpy()})
    assert_close(torch.tensor(found["latents"]), expected)


STREAMS = {
    "wan native": lambda: (
        WanStreamEncoder(wan(), 4),
        (1, 4, 4, 4, 4, 4),
        wan_latents(wan(), frames(21), 4),
    ),
    "wan 5B native": lambda: (
        WanStreamEncoder(wan(True), 4),
        (1, 4, 4, 4, 4, 4),
        wan_latents(wan(True), frames(21), 4),
    ),
    "cogvideox native": lambda: (
        CogVideoXStreamEncoder(cogvideox(), 4),
        (9, 8, 8),
        cogvideox_latents(cogvideox(), frames(25)),
    ),
}


@pytest.mark.parametrize("form", STREAMS)
def test_graphs_of_a_stream(form: str, tmp_path: Path) -> None:
    """The first graph's caches go into the second, and the second's into itself."""
    encoder, groups, expected = STREAMS[form]()
    clip = frames(sum(groups)).split(list(groups))
    start = exported(encoder, clip[0], [], tmp_path / "start.onnx")
    step = exported(encoder, clip[1], encoder(clip[0])[1:], tmp_path / "step.onnx")
    first = start.run({"frames": clip[0].numpy()})
    latents = run_groups(step, clip[1:], list(first.values())[1:])
    assert_close(torch.cat((torch.tensor(first["latents"]), latents), dim=2), expected)


def test_graph_of_a_frame_wise_stream(tmp_path: Path) -> None:
    """One graph, one frame a run, from caches of zeros."""
    encoder = WanStreamEncoder(wan(), 1)
    zeros = [torch.zeros_like(cached) for cached in encoder(frames(1))[1:]]
    path = tmp_path / "encoder.onnx"
    step = exported(encoder, frames(1), zeros, path)
    found = run_groups(step, frames(7).split(1), [cached.numpy() for cached in zeros])
    assert_close(found, wan_latents(wan(), frames(7), 1))
    # The strided convolutions in time are not used, and not in the file.
    weights = onnx.load(path).graph.initializer
    assert not [weight.name for weight in weights if "time_conv" in weight.name]


def exported(
    encoder: nn.Module, group: Tensor, caches: Sequence[Tensor], path: Path
) -> OnnxRuntimeSession:
    examples = {"frames": group} | {f"cache.{i}": cached for i, cached in enumerate(caches)}
    kept = len(encoder(group, *caches)) - 1
    outputs = ["latents", *(f"next_cache.{i}" for i in range(kept))]
    export_graph(encoder, examples, path, outputs=outputs)
    session = OnnxRuntimeSession(path)
    assert list(session.inputs) == list(examples)
    assert list(session.outputs) == outputs
    return session


def run_groups(step: OnnxRuntimeSession, groups: Sequence[Tensor], caches: Sequence) -> Tensor:
    latents = []
    for group in groups:
        inputs = {f"cache.{i}": cached for i, cached in enumerate(caches)}
        encoded, *caches = step.run({"frames": group.numpy()} | inputs).values()
        latents.append(torch.tensor(encoded))
    return torch.cat(latents, dim=2)
