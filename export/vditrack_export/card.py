"""Model cards: what is exported of a checkpoint, in TOML, every number with its source."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import Matching, Propagation
from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_TOML_SIZE, MalformedError, decode_toml, read_file
from vditrack_export.families.base_shapes import (
    DenoiserShape,
    EncoderShape,
    Feature,
    TinyEncoderKind,
    Transformer,
)
from vditrack_export.families.registry import DENOISER_SHAPES, ENCODER_SHAPES, resolve_family
from vditrack_export.families.text_encoders import TextEncoder
from vditrack_export.families.tiny_encoders.shapes import derive_shape

if TYPE_CHECKING:
    from vditrack_export.families.base_family import Encoder, Family

    AnyDenoiser = DenoiserShape
    AnyEncoder = EncoderShape
else:
    # msgspec decodes a table by its tag, and needs all classes that have one.
    AnyDenoiser = Union[DENOISER_SHAPES]  # noqa: UP007
    AnyEncoder = Union[ENCODER_SHAPES]  # noqa: UP007


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read of the same checkpoint for masks."""

    input: Input
    feature: Feature


class Masks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How object masks are propagated (TED, arXiv 2512.02339)."""

    motion: Part | None = None
    """Read at high noise over a window of frames. None if motion is the displacement of the
    appearance features."""
    appearance: Part
    """Read at low noise from single frames."""
    propagation: Propagation

    @property
    def own_motion(self) -> Part:
        """The part that motion is read with.

        Raises:
            InputError: There is none.

        """
        if self.motion is None:
            raise InputError(
                "the card takes motion from the displacement of appearance features "
                "(masks.propagation.displacement), not from the model: there is nothing to select. "
                "Give it [masks.motion] instead."
            )
        return self.motion

    def __post_init__(self) -> None:
        if self.appearance.input.frames != 1:
            raise ValueError("appearance is read from single frames: frames are not 1")
        parts = [part for part in (self.motion, self.appearance) if part is not None]
        if any(part.input.attention != "window" for part in parts):
            raise ValueError('masks are read from whole windows: attention is not "window"')
        if (self.motion is None) == (self.propagation.displacement is None):
            raise ValueError("motion is either a part of its own, or a displacement: give one")


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backbone: its checkpoint, the input it is exported for, and how its features match."""

    name: Annotated[str, Meta(min_length=1)]
    checkpoint: str
    licence: str
    notes: str
    input: Input
    transformer: AnyDenoiser
    """Shapes of the network that is read: a transformer or a UNet."""
    encoder: AnyEncoder
    """Shapes of the checkpoint's own encoder."""
    tiny_encoder: TinyEncoderKind | None = None
    """Small encoder of the same latents that is exported in place of the checkpoint's own."""
    text_encoder: TextEncoder | None = None
    """Text encoder of the checkpoint's pipeline; without one the prompt is a constant."""
    feature: Feature
    matching: Matching
    masks: Masks | None = None
    """How masks are propagated; None if this checkpoint is not used for masks."""

    @property
    def cell(self) -> int:
        """Side of a cell of the descriptor grid, in pixels."""
        return self.encoder.stride * self.transformer.cell(self.feature.block)

    def require_transformer(self) -> Transformer:
        """Return the shapes of the transformer.

        Raises:
            InputError: The card has a UNet.

        """
        shape = self.transformer.as_transformer
        if shape is None:
            raise InputError(
                f"card {self.name}: it has a UNet, which can only be exported as its card says. "
                "Give the card of a transformer."
            )
        return shape

    @property
    def family(self) -> Family:
        """The family that the shapes belong to. This needs torch and diffusers."""
        return resolve_family(self.transformer, self.encoder, self.tiny_encoder)

    @property
    def own_encoder(self) -> Encoder[Any]:
        """The checkpoint's own encoder, also if a tiny one is exported in its place."""
        return resolve_family(self.transformer, self.encoder).encoder

    def __post_init__(self) -> None:
        shape, encoder, size = self.transformer, self.encoder, self.input
        for complaint in shape.complaints(self.feature, size, encoder.stride):
            raise ValueError(complaint)
        if self.tiny_encoder is not None:
            derive_shape(self.tiny_encoder, encoder)
        strides = encoder.temporal_strides
        claims = [
            (
                size.attention in shape.attentions,
                f'attention "{size.attention}" is not one of the family '
                f"{shape.__struct_config__.tag}: give {' or '.join(shape.attentions)}",
            ),
            (
                shape.in_channels == encoder.latent_channels,
                "latent_channels of the encoder are not in_channels of the transformer",
            ),
            (
                self.text_encoder is None or self.text_encoder.width == shape.text_dim,
                "width of the text encoder is not text_dim of the transformer",
            ),
            (
                size.temporal_stride in strides,
                f"temporal_stride {size.temporal_stride} is not one of the encoder's: give "
                f"{' or '.join(map(str, strides))}",
            ),
            (
                self.feature.timestep >= 0 or shape.signed_timestep,
                "timestep is less than 0",
            ),
        ]
        for holds, complaint in claims:
            if not holds:
                raise ValueError(complaint)


def load_card(name_or_path: str) -> Card:
    """Load a card that comes with vditrack by its name, or any other by its path.

    Raises:
        InputError: There is no such card, or it is invalid.

    """
    path = card_path(name_or_path)
    try:
        return decode_toml(read_file(path, MAX_TOML_SIZE), Card)
    except OSError as error:
        raise InputError(f"card {path} cannot be read: {error.strerror}.") from error
    except MalformedError as error:
        raise InputError(f"card {path}: {error}. Correct it there.") from error


def card_path(name_or_path: str) -> Path:
    """Return the path of a card that comes with vditrack by its name, or of any other by its path.

    Raises:
        InputError: No card has that name.

    """
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
