"""Windows of frames that a card's model can be run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.card import Card

_LARGEST_LAYERS = 1000
_LARGEST_SIZE = 1 << 19
"""Larger than every number of the known models by ten times, and than their vocabularies."""

LatentSize = tuple[int, int, int]
"""Frames, rows and columns of the latents of a window."""


@dataclass(frozen=True)
class Setting:
    """The size of a window in pixels and frames, and how many frames share a latent."""

    height: int
    width: int
    frames: int
    temporal_stride: int

    @property
    def latent_frames(self) -> int:
        """Latents of one window; with temporal compression the first frame has its own."""
        return 1 + (self.frames - 1) // self.temporal_stride


def card_setting(card: Card) -> Setting:
    """Return the window that a card is exported for."""
    size = card.input
    return Setting(size.height, size.width, size.frames, size.temporal_stride)


def require_plausible_sizes(card: Card) -> None:
    """Check that a card has the sizes of a model, before its networks are built.

    Raises:
        InputError: A size or a number of layers is absurd, and to build them would take hours.

    """
    sections = ("input", "transformer", "encoder", "text_encoder")
    plain = msgspec.to_builtins(card)
    for name, value in _list_integers({section: plain.get(section) for section in sections}):
        counts_layers = name.endswith(("layers", "blocks"))
        largest = _LARGEST_LAYERS if counts_layers else _LARGEST_SIZE
        if value > largest:
            raise InputError(
                f"card {card.name}: {name} is {value}, and no model has more than {largest}. "
                "Correct it there."
            )


def _list_integers(value: object, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in plain data, with their dotted names; lists have one name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _list_integers(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _list_integers(item, name)
    elif isinstance(value, int):
        yield name, value


def check_setting(card: Card, setting: Setting) -> None:
    """Check that a card's model can be run on a window.

    Raises:
        InputError: The picture does not divide into cells of descriptors.

    """
    side = card.cell
    if setting.height % side or setting.width % side:
        raise InputError(
            f"card {card.name}: {setting.width} x {setting.height} pixels do not divide into "
            f"cells of {side}. Correct it there."
        )


def latent_size(card: Card, setting: Setting) -> LatentSize:
    """Return frames, rows and columns of the latents of a window."""
    side = card.encoder.stride
    return setting.latent_frames, setting.height // side, setting.width // side


def window_input(card: Card, setting: Setting) -> Input:
    """Return the input of a bundle that is exported for a window and describes all its frames.

    With cached keys it describes as many latents as the card.

    Raises:
        ValueError: No bundle can have such an input.

    """
    size = encoder_input(card, setting)
    if card.input.attention == "window":
        return size
    return msgspec.structs.replace(
        size,
        attention=card.input.attention,
        described_frames=card.input.described_latents * setting.temporal_stride,
    )


def encoder_input(card: Card, setting: Setting) -> Input:
    """Return the input that an encoder is built for, which does not depend on attention.

    Raises:
        ValueError: No bundle can have such an input.

    """
    return msgspec.structs.replace(
        card.input,
        height=setting.height,
        width=setting.width,
        frames=setting.frames,
        temporal_stride=setting.temporal_stride,
        described_frames=setting.frames,
        overlap=1,
        attention="window",
    )


def is_possible(card: Card, setting: Setting) -> bool:
    """Return whether the card would be valid with a window."""
    try:
        msgspec.structs.replace(card, input=window_input(card, setting))
    except ValueError:
        return False
    return True
