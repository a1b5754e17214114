"""A random checkpoint of the bundled model's kind, much smaller, and its card."""

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from vditrack_export.families.tiny.autoencoder import TinyEncoder

TINY_CARD = """
name = "small"
checkpoint = "random numbers"
licence = "Apache-2.0"
notes = "for tests"
[input]
height = 32
width = 48
frames = 4
described_frames = 4
temporal_stride = 1
[transformer]
family = "wan"
layers = 3
heads = 2
head_dim = 32
feed_forward = 64
in_channels = 24
out_channels = 24
patch = [1, 1, 1]
frequency_dim = 32
text_dim = 16
text_tokens = 1
[encoder]
kind = "convolutions"
widths = [32, 64, 128]
latent_channels = 24
[feature]
block = 1
heads = [1, 0]
tensor = "keys"
frequency_range = [0.4, 1.0]
signal_level = 0.9
noise_level = 0.1
timestep = 100.0
noise_seed = 0
[matching]
temperature = 0.05
argmax_radius = 12
search_radius = 48
visibility_threshold = 12
similarity_threshold = 0.4
recovery_threshold = 0.6
template_update = 0.05
update_after_loss = true
horizon = 8
"""

MASK_SECTIONS = """
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
[masks.motion.feature]
block = 2
heads = [0, 1]
tensor = "hidden"
frequency_range = [0.0, 1.0]
signal_level = 0.3
noise_level = 0.7
timestep = 700.0
noise_seed = 0
[masks.appearance.input]
height = 64
width = 80
frames = 1
described_frames = 1
temporal_stride = 1
[masks.appearance.feature]
block = 0
heads = [0, 1]
tensor = "hidden"
frequency_range = [0.0, 1.0]
signal_level = 0.949
noise_level = 0.051
timestep = 51.0
noise_seed = 1
"""


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
    TinyEncoder(24, (32, 64, 128)).save(folder)
    make_tiny_transformer().save_pretrained(folder / "vdit")
    return folder
