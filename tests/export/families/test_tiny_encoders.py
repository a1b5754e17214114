"""Tiny encoders give the latents of TAEHV and TAESD, aligned in time with the own encoder's."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

from doubles.pipeline_latents import prepared
from doubles.small_families import perturb
from doubles.taehv import Weights, decode_video, encode_video, taehv_weights
from vditrack.errors import InputError
from vditrack_export.card import Card, load_card
from vditrack_export.card_changes import change_card, replace_encoder
from vditrack_export.checkpoints.checkpoint import StoredCheckpoint
from vditrack_export.checkpoints.sources import Weights as Source
from vditrack_export.pipeline.parity import encode_window
from vditrack_export.pipeline.precision import count_products, lower_precision
from vditrack_export.pipeline.sessions import TorchSession

MAX_RELATIVE_ERROR = 1e-5
VIDEO_CARDS = {
    # Frames per latent, patch, frames that each level joins.
    "wan2.1-t2v-1.3b": (16, 4, 1, (2, 2, 1)),
    "wan2.2-ti2v-5b": (48, 4, 2, (2, 2, 1)),
    "ltx-video": (128, 8, 4, (2, 2, 2)),
}


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def tiny_card(name: str, kind: str = "taehv", stride: int | None = None, latents: int = 3) -> Card:
    card = load_card(name)
    stride = stride or card.encoder.temporal_stride
    size = f"{2 * card.cell}x{card.cell}"
    frames = 1 + stride * (latents - 1)
    sized = change_card(card, size=size, frames=frames, temporal_stride=stride)
    return replace_encoder(sized, kind)


def saved(weights: Weights, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


def load(card: Card, path: Path):
    return card.family.encoder.load(StoredCheckpoint(Source(None, tiny_encoder=path)))


def make_clip(card: Card, frames: int | None = None) -> Tensor:
    size = card.input
    shape = (frames or size.frames, size.height, size.width, 3)
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def streamed(card: Card, network, clip: Tensor) -> Tensor:
    """The latents that the exported modules give as the runtime runs them."""
    form = card.family.encoder.form(network, card.input)
    return torch.from_numpy(encode_window(form, TorchSession, clip))


def assert_close(found: Tensor, expected: Tensor, limit: float = MAX_RELATIVE_ERROR) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "suffix"), [*zip(VIDEO_CARDS, [".safetensors", ".pth", ".pt"], strict=True)]
)
def test_latents_of_a_stream_are_taehvs(name: str, suffix: str, tmp_path: Path) -> None:
    """Latent k is the last one of TAEHV for the clip that ends with frame 4k (or 8k)."""
    channels, stride, patch, pooled = VIDEO_CARDS[name]
    card = tiny_card(name)
    weights = taehv_weights(channels, patch, pooled)
    network = load(card, saved(weights, tmp_path / f"own{suffix}"))
    clip = make_clip(card)
    expected = [encode_video(weights, clip[: end + 1])[-1] for end in range(0, len(clip), stride)]
    found = streamed(card, network, clip)
    assert_close(found, torch.stack(expected, dim=1)[None])
    # The check at export does the same without caches.
    original = card.family.encoder.original_latents(network, clip, stride)
    assert_close(original, torch.stack(expected, dim=1)[None])


def test_single_frames_are_clips_of_their_own(tmp_path: Path) -> None:
    card = tiny_card("wan2.1-t2v-1.3b", stride=1)
    weights = taehv_weights(16)
    network = load(card, saved(weights, tmp_path / "own.safetensors"))
    clip = make_clip(card)
    expected = torch.cat([encode_video(weights, frame[None]) for frame in clip])
    assert_close(streamed(card, network, clip), expected.transpose(0, 1)[None])
    original = card.family.encoder.original_latents(network, clip, 1)
    assert_close(original, expected.transpose(0, 1)[None])


def first_changes(run: Callable[[Tensor], Tensor], given: Tensor) -> list[int]:
    """Change one frame or latent after the other: which result is the first that differs?"""
    before, firsts = run(given), []
    for index in range(len(given)):
        changed = given.clone()
        changed[index] = 255 - changed[index] if given.dtype == torch.uint8 else -given[index] - 1
        differs = (run(changed) != before).flatten(1).any(1)
        firsts.append(int(differs.nonzero()[0]))
    return firsts


def test_frames_and_latents_are_aligned_as_in_the_own_autoencoder(tmp_path: Path) -> None:
    card = tiny_card("wan2.1-t2v-1.3b")
    weights = taehv_weights(16)
    network = load(card, saved(weights, tmp_path / "own.safetensors"))
    torch.manual_seed(0)
    vae = perturb(AutoencoderKLWan(base_dim=4, z_dim=16, num_res_blocks=1))
    latents = torch.randn(3, 16, 2, 2)
    # A decoded clip begins with one frame of latent 0; latent k gives frames 4k - 3 to 4k.
    decoded = first_changes(lambda given: decode_video(weights, given), latents)
    own = first_changes(
        lambda given: vae.decode(given.transpose(0, 1)[None]).sample[0].transpose(0, 1), latents
    )
    assert decoded == own == [0, 1, 5]
    # So latent k is made of frames up to 4k, and of none after it.
    clip = make_clip(card, 9)
    encoded = first_changes(lambda given: streamed(card, network, given)[0].transpose(0, 1), clip)
    own = first_changes(
        lambda given: vae.encode(prepared(given)).latent_dist.mode()[0].transpose(0, 1), clip
    )
    assert encoded == own == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    # The groups of TAEHV's own encoder reach three frames further, unless a clip ends before.
    groups = first_changes(lambda given: encode_video(weights, given), clip)
    assert groups == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert len(encode_video(weights, clip)) == streamed(card, network, clip).shape[2]
    assert len(decode_video(weights, encode_video(weights, clip))) == len(clip)


def test_taehv_in_fp16(tmp_path: Path) -> None:
    card = tiny_card("wan2.1-t2v-1.3b")
    network = load(card, saved(taehv_weights(16), tmp_path / "own.safetensors"))
    clip = make_clip(card)
    expected = streamed(card, network, clip)
    form = card.family.encoder.form(network, card.input)
    module = form.graphs[-1].module
    lower_precision(module, "fp16")
    assert count_products(module) == 35
    # Caches are rounded as the inputs of the layers are.
    form = card.family.encoder.form(network, card.input)
    caches = [value for name, value in form.graphs[-1].examples.items() if name != "frames"]
    assert len(caches) == 10
    assert all(cache.dtype == torch.float16 for cache in caches)
    error = (streamed(card, network, clip) - expected).abs().max() / expected.abs().max()
    assert 1e-5 < error < 5e-3


@pytest.mark.parametrize("name", ["stable-diffusion-2.1", "i2vgen-xl", "stable-video-diffusion"])
def test_taesd_gives_the_latents_of_diffusers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = perturb(AutoencoderTiny())
    vae.save_pretrained(tmp_path / "taesd")
    card = tiny_card(name, "taesd", 1)
    clip = make_clip(card, 2)
    network = load(card, tmp_path / "taesd")
    expected = vae.encode(prepared(clip)[0].transpose(0, 1)).latents
    assert_close(streamed(card, network, clip), expected.transpose(0, 1)[None])


def refusal(card: Card, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        card.family.encoder.files(StoredCheckpoint(Source(None, tiny_encoder=path)))
    return str(caught.value)


def test_files_of_other_models_are_refused_by_name(tmp_path: Path) -> None:
    card = tiny_card("wan2.1-t2v-1.3b")
    five_billion = saved(taehv_weights(48, 2), tmp_path / "mine.pth")
    message = refusal(card, five_billion)
    assert "48 channels of latents, patches of 2 x 2 pixels and a latent every 4 frames" in message
    assert "16 channels of latents, patches of 1 x 1 pixels" in message
    # These have the same shapes; only the name tells them apart.
    other = saved(taehv_weights(16), tmp_path / "taehv.safetensors")
    assert "taehv by its name, for HunyuanVideo" in refusal(card, other)
    assert "Give taew2_1" in refusal(card, other)
    assert "taew2_1" in refusal(tiny_card("cogvideox-2b"), other.rename(tmp_path / "taew2_1.pt"))
    light = saved(taehv_weights(16), tmp_path / "lighttaew2_1.safetensors")
    assert "not in the transformer's scale" in refusal(card, light)
    ltx = saved(taehv_weights(128, 4, (2, 2, 2)), tmp_path / "taeltx_2.safetensors")
    assert "for LTX-2" in refusal(tiny_card("ltx-video"), ltx)
    sdxl = tmp_path / "taesdxl"
    AutoencoderTiny().save_pretrained(sdxl)
    unet = tiny_card("stable-diffusion-2.1", "taesd", 1)
    assert "Stable Diffusion XL" in refusal(unet, sdxl)
    wide = tmp_path / "wide"
    AutoencoderTiny(latent_channels=16).save_pretrained(wide)
    assert "latent_channels 16" in refusal(unet, wide)


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    card, weights = tiny_card("wan2.1-t2v-1.3b"), taehv_weights(16)
    decoder = {name: value for name, value in weights.items() if name.startswith("decoder")}
    assert "no encoder of TAEHV" in refusal(card, saved(decoder, tmp_path / "decoder.pth"))
    more = weights | {"encoder.18.weight": torch.zeros(3)}
    assert "encoder.18.weight" in refusal(card, saved(more, tmp_path / "more.pth"))
    assert "is not a file" in refusal(card, tmp_path / "none.pth")
    code = tmp_path / "code.pth"
    torch.save({"encoder.0.weight": print}, code)
    assert "run code" in refusal(card, code)
    broken = dict(weights)
    broken["encoder.17.bias"] = torch.full((16,), np.nan)
    path = saved(broken, tmp_path / "broken.pth")
    with pytest.raises(InputError, match=r"encoder\.17\.bias.*NaN"):
        load(card, path)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("stable-diffusion-2.1", "taehv", "give taesd"),
        ("wan2.1-t2v-1.3b", "taesd", "give taehv"),
        ("adm-imagenet-256", "taesd", "there is none"),
        ("tiny", "taehv", "there is none"),
    ],
)
def test_cards_without_such_an_encoder(name: str, kind: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        replace_encoder(load_card(name), kind)


def published(cards: Sequence[str]) -> list[str | None]:
    encoders = [load_card(name).encoder.tiny_encoder for name in cards]
    return [encoder and encoder.published for encoder in encoders]


def test_published_weights_of_the_cards() -> None:
    wan = ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "cosmos-predict2-2b", "skyreels-v2-df-1.3b"]
    assert published(wan) == ["taew2_1"] * 4
    others = ["wan2.2-ti2v-5b", "cogvideox-2b", "cogvideox-5b", "hunyuan-video", "ltx-video"]
    assert published(others) == ["taew2_2", "taecvx", "taecvx", "taehv", None]
