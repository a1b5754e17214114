"""Cards of small random models."""

import json
import re
from pathlib import Path

CARD_TOP = """
name = "small"
checkpoint = "random numbers"
licence = "Apache-2.0"
notes = "for tests"
[input]
height = 64
width = 96
frames = 5
described_frames = 5
temporal_stride = 1
"""
CARD_BOTTOM = """
[feature]
block = 1
heads = [1]
tensor = "keys"
frequency_range = [0.0, 1.0]
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
horizon = 4
"""
SHAPE = """
layers = 3
heads = 2
head_dim = 32
in_channels = 4
out_channels = 4
patch = [1, 2, 2]
text_dim = 16
text_tokens = 7
"""
"""The transformer's size, in all families."""


def change_fields(text: str, changes: dict[str, object]) -> str:
    """Replace the values of those fields that stand in a part of a card."""
    for name, value in changes.items():
        line = f"{name} = {json.dumps(value)}"
        text = re.sub(rf"^{name} = .*$", line, text, flags=re.MULTILINE)
    return text


TINY_SHAPE = {"in_channels": 24, "out_channels": 24, "patch": [1, 1, 1], "text_tokens": 1}
TINY_MODEL = f"""
[transformer]
family = "wan"
feed_forward = 64
frequency_dim = 32{change_fields(SHAPE, TINY_SHAPE)}[encoder]
kind = "convolutions"
widths = [32, 64]
residuals = [1, 1]
context = []
latent_channels = 24
"""
"""A transformer and an encoder of the bundled model's kind, much smaller."""


def make_card(model: str, **changes: object) -> str:
    """Return a card with the sections of a model.

    ``changes`` are other values of fields of the sections ``input``, ``feature`` and ``matching``,
    by the field's name.
    """
    return change_fields(CARD_TOP, changes) + model + change_fields(CARD_BOTTOM, changes)


def save_card(folder: Path, text: str) -> Path:
    """Write a card into a folder."""
    path = folder / "small.toml"
    path.write_text(text)
    return path
