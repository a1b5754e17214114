"""Model cards: what to cut out of a checkpoint, in TOML, every number with its source."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle import Input, Matching
from vditrack.errors import InputError

Index = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which internal tensor of the transformer is the descriptor."""

    block: Index
    heads: Annotated[tuple[Index, ...], Meta(min_length=1)]
    tensor: Literal["keys"]
    frequency_range: tuple[Fraction, Fraction]
    """Part of each rotary axis that is kept, counted from its highest frequency."""
    timestep: Annotated[float, Meta(ge=0)]
    noise_level: Fraction
    """Sigma in (1 - sigma) latents + sigma noise."""
    noise_seed: Index

    def __post_init__(self) -> None:
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads {list(self.heads)} name one head twice")
        if self.frequency_range[0] >= self.frequency_range[1]:
            raise ValueError(f"frequency_range {list(self.frequency_range)} is empty")


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backbone: its checkpoint, the input it is exported for, and how its features match."""

    name: Annotated[str, Meta(min_length=1)]
    family: Literal["wan"]
    checkpoint: str
    licence: str
    notes: str
    input: Input
    feature: Feature
    matching: Matching


def load_card(name_or_path: str) -> Card:
    """Read a card that comes with vditrack, by name, or any other, by path.

    Raises:
        InputError: there is no such card, or it is not one.

    """
    path = _find(name_or_path)
    try:
        card = msgspec.toml.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise InputError(f"card {path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"card {path}: {error}. Correct it there.") from error
    if card.input.frames % card.input.encoder_frames:
        raise InputError(f"card {path}: encoder_frames does not divide frames. Correct it there.")
    if card.input.described_frames > card.input.frames:
        raise InputError(f"card {path}: described_frames is more than frames. Correct it there.")
    return card


def _find(name_or_path: str) -> Path:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    folder = Path(str(resources.files("vditrack.models")))
    cards = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name_or_path not in cards:
        raise InputError(
            f"no card is named {name_or_path!r}; there are: {', '.join(cards)}. "
            "Another card is given by the path of its .toml file."
        )
    return cards[name_or_path]
