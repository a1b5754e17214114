"""A random checkpoint of the bundled model's kind, much smaller, and its card."""

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from doubles.cards import TINY_MODEL, change_fields, make_card
from vditrack_export.families.tiny.autoencoder import TinyEncoder

TINY_CARD = make_card(
    TINY_MODEL,
    height=32,
    width=48,
    frames=4,
    described_frames=4,
    heads=[1, 0],
    frequency_range=[0.4, 1.0],
    horizon=8,
)
MOTION_FEATURE = """
block = 2
heads = [0, 1]
tensor = "hidden"
frequency_range = [0.0, 1.0]
signal_level = 0.3
noise_level = 0.7
timestep = 700.0
noise_seed = 0
"""
APPEARANCE_FEATURE = change_fields(
    MOTION_FEATURE,
    {"block": 0, "signal_level": 0.949, "noise_level": 0.051, "timestep": 51.0, "noise_seed": 1},
)
MASK_SECTIONS = f"""
[masks.propagation]
motion_weight = 0.6
temperature = 0.1
top_k = 10
radius = 5
context = 4
[masks.motion.input]
height = 32
width = 48
frames = 5
described_frames = 5
temporal_stride = 1
overlap = 2
[masks.motion.feature]{MOTION_FEATURE}[masks.appearance.input]
height = 64
width = 80
frames = 1
described_frames = 1
temporal_stride = 1
[masks.appearance.feature]{APPEARANCE_FEATURE}"""


def make_tiny_transformer(seed: int = 1, **changes: int) -> WanTransformer3DModel:
    """Return the card's transformer with the random weights of a seed, or one of another shape."""
    torch.manual_seed(seed)
    shape = {"num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 24, "num_layers": 3}
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        out_channels=24,
        text_dim=16,
        freq_dim=32,
        ffn_dim=64,
        **(shape | changes),
    )


def save_tiny_checkpoint(folder: Path) -> Path:
    """Write the encoder and the transformer into a folder that exists."""
    torch.manual_seed(0)
    TinyEncoder(24, (32, 64), (1, 1), ()).save(folder)
    make_tiny_transformer().save_pretrained(folder / "vdit")
    return folder
