"""Cards of every family that have the shapes of shipped cards, much smaller."""

from typing import Any

import msgspec

from vditrack_export.card import Card, load_card

_TRANSFORMER = {
    "layers": 3,
    "heads": 2,
    "head_dim": 32,
    "feed_forward": 256,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "text_tokens": 5,
}
_UNET = {
    "widths": [32, 32, 64, 64],
    "residual_blocks": 1,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "text_tokens": 5,
}
_TEXT = {"layers": 2, "width": 16, "heads": 2, "head_dim": 8, "feed_forward": 24, "vocabulary": 50}
_CAUSAL = {"base_width": 8, "multiples": [1, 1, 2, 2], "residual_blocks": 1, "latent_channels": 4}
_IMAGES = {"widths": [32, 32, 32, 64], "residual_blocks": 1, "latent_channels": 4}

_SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {"transformer": {"layers": 3}},
    "wan2.1-t2v-1.3b": {
        "transformer": {**_TRANSFORMER, "frequency_dim": 16},
        "encoder": _CAUSAL,
        "text_encoder": _TEXT,
    },
    "wan2.2-ti2v-5b": {
        "transformer": {**_TRANSFORMER, "frequency_dim": 16},
        "encoder": {**_CAUSAL, "decoder_base_width": 12},
        "text_encoder": _TEXT,
    },
    "skyreels-v2-df-1.3b": {
        "transformer": {**_TRANSFORMER, "frequency_dim": 16},
        "encoder": _CAUSAL,
        "text_encoder": _TEXT,
    },
    "cogvideox-2b": {
        "transformer": {**_TRANSFORMER, "time_dim": 20},
        "encoder": {**_IMAGES, "widths": [32, 32, 32, 32]},
        "text_encoder": _TEXT,
    },
    "cogvideox-5b": {
        "transformer": {**_TRANSFORMER, "time_dim": 20},
        "encoder": {**_IMAGES, "widths": [32, 32, 32, 32]},
        "text_encoder": _TEXT,
    },
    "cosmos-predict2-2b": {
        "transformer": {**_TRANSFORMER, "modulation_dim": 12},
        "encoder": _CAUSAL,
        "text_encoder": _TEXT,
    },
    "ltx-video": {
        "transformer": _TRANSFORMER,
        "encoder": {"widths": [8, 8, 16, 16], "residual_blocks": [1] * 5, "latent_channels": 4},
        "text_encoder": _TEXT,
    },
    "hunyuan-video": {
        "transformer": {
            **_TRANSFORMER,
            "single_layers": 2,
            "refiner_layers": 1,
            "pooled_dim": 8,
        },
        "encoder": {**_IMAGES, "widths": [32, 32, 32, 32]},
        "text_encoder": _TEXT,
    },
    "stable-diffusion-2.1": {
        "transformer": {**_UNET, "attention_heads": [1, 1, 2, 2]},
        "encoder": _IMAGES,
        "text_encoder": _TEXT,
    },
    "i2vgen-xl": {
        "transformer": {**_UNET, "head_dim": 16},
        "encoder": _IMAGES,
        "text_encoder": _TEXT,
    },
    "stable-video-diffusion": {
        "transformer": {
            **{name: side for name, side in _UNET.items() if not name.startswith("text")},
            "attention_heads": [1, 1, 2, 2],
            "image_dim": 16,
            "condition_dim": 8,
        },
        "encoder": _IMAGES,
    },
    "adm-imagenet-256": {
        "transformer": {
            "widths": [32, 32, 64],
            "attention": [False, True, True],
            "residual_blocks": 1,
            "head_dim": 16,
        },
    },
}

SMALL_CARDS = tuple(_SMALL)
"""Names of the shipped cards that have a small one of whole windows."""

CAUSAL_CARD = "wan2.1-causal-1.3b"
_SMALL[CAUSAL_CARD] = _SMALL["wan2.1-t2v-1.3b"]


def make_small_card(
    name: str,
    *,
    frames: int,
    temporal_stride: int = 1,
    size: tuple[int, int] = (64, 96),
    attention: str = "window",
    chunk: int = 1,
) -> Card:
    """Return a card of a shipped one's family with a small picture and small networks.

    All frames of a window are described, or with cached keys a chunk of latents, by the third block
    or layer of the network.
    """
    plain = msgspec.to_builtins(load_card(name))
    for section, sides in _SMALL[name].items():
        plain[section] |= sides
    plain["input"] |= {
        "height": size[0],
        "width": size[1],
        "frames": frames,
        "described_frames": frames if attention == "window" else chunk * temporal_stride,
        "attention": attention,
        "temporal_stride": temporal_stride,
        "overlap": 1,
    }
    transformer = "heads" in plain["transformer"]
    plain["feature"] |= {"block": 2, "heads": [1, 0] if transformer else [0]}
    if "chunk" in plain["transformer"]:
        plain["transformer"]["chunk"] = chunk
    plain["masks"] = None
    return msgspec.convert(plain, Card)
