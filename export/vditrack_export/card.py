"""Model cards: what to cut out of a checkpoint, in TOML, every number with its source."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import Matching, Positive, PositiveReal, Propagation
from vditrack.bundle.manifest import Input
from vditrack.errors import InputError

Index = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which internal tensor of the transformer, or of the UNet, is the descriptor."""

    block: Index
    """Of a transformer's blocks, or of the layers of a UNet's decoder (`UNet`)."""
    heads: Annotated[tuple[Index, ...], Meta(min_length=1)]
    selected: bool = True
    """Whether block and heads were chosen for tracking; if not, they stand in for a choice."""
    tensor: Literal["keys", "queries", "hidden"]
    rotated: bool = True
    """Keys and queries after the rotary embedding, or before it."""
    frequency_range: tuple[Fraction, Fraction]
    """Part of each rotary axis that is kept, counted from its highest frequency."""
    frequency_layout: Literal["rotary", "reference"] = "rotary"
    """By true frequency, or by the slices of HeFT's reference where these differ (Cosmos)."""
    timestep: float
    """What the model is told of the noise; Stable Video Diffusion takes a logarithm of it."""
    signal_level: Fraction
    noise_level: Fraction
    """The transformer sees signal_level x latents + noise_level x noise."""
    noise_seed: Index

    def __post_init__(self) -> None:
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads {list(self.heads)} name one head twice")
        if self.frequency_range[0] >= self.frequency_range[1]:
            raise ValueError(f"frequency_range {list(self.frequency_range)} is empty")


Sizes = Annotated[tuple[Positive, ...], Meta(min_length=1)]


class Transformer(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="family"
):
    """What the shapes of all families have in common."""

    layers: Positive
    heads: Positive
    head_dim: Positive
    feed_forward: Positive
    in_channels: Positive
    out_channels: Positive
    patch: tuple[Positive, Positive, Positive]
    """Frames, rows and columns of latents that make one token."""
    text_dim: Positive
    """Width of what the text encoder gives."""
    text_tokens: Positive
    """Length to which prompts are padded."""

    @property
    def width(self) -> int:
        """Of a token."""
        return self.heads * self.head_dim


class WanTransformer(Transformer, frozen=True, kw_only=True, tag="wan"):
    """Shapes of a diffusers ``WanTransformer3DModel``."""

    frequency_dim: Positive
    """Sines and cosines that stand for the timestep."""


class CogVideoXTransformer(Transformer, frozen=True, kw_only=True, tag="cogvideox"):
    """Shapes of a diffusers ``CogVideoXTransformer3DModel``."""

    time_dim: Positive
    """Width of the timestep's embedding."""
    rotary: bool
    """Whether positions are rotary embeddings; else sums of sines are added once."""


class LtxTransformer(Transformer, frozen=True, kw_only=True, tag="ltx"):
    """Shapes of a diffusers ``LTXVideoTransformer3DModel``."""

    patch: tuple[Literal[1], Literal[1], Literal[1]]
    """The autoencoder makes the patches."""


class HunyuanVideoTransformer(Transformer, frozen=True, kw_only=True, tag="hunyuan_video"):
    """Shapes of a diffusers ``HunyuanVideoTransformer3DModel``; ``layers`` have two streams."""

    single_layers: Positive
    """Blocks of one stream after them, which no path reaches."""
    refiner_layers: Positive
    """Blocks that the prompt's tokens go through first."""
    pooled_dim: Positive
    """Width of the pooled prompt, which a second text encoder gives."""

    def __post_init__(self) -> None:
        if self.pooled_dim > self.text_dim:
            raise ValueError("pooled_dim is more than text_dim")


class CosmosTransformer(Transformer, frozen=True, kw_only=True, tag="cosmos"):
    """Shapes of a diffusers ``CosmosTransformer3DModel``."""

    modulation_dim: Positive
    """Width of the low-rank modulation by the timestep."""
    rope_scale: tuple[PositiveReal, PositiveReal, PositiveReal]
    """Of rotary wavelengths in time, height and width."""


class UNet(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="family"
):
    """What the shapes of UNets have in common.

    Hidden states of the decoder's layers are read, whole: they have neither heads nor rotary
    frequencies, and count as one head. A layer is a residual block with the attention after it,
    and the last one of a level, but for the last level, with what doubles rows and columns. So the
    third of four levels of three layers ends with layer 8, counted from 0.
    """

    widths: Sizes
    """By level of the encoder; between two levels the picture is halved."""
    residual_blocks: Positive
    """In a level of the encoder; the decoder has one more."""
    in_channels: Positive
    """Of the latents."""
    out_channels: Positive

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latents do not become patches."""
        return (1, 1, 1)

    @property
    def layers(self) -> int:
        """Of the decoder."""
        return len(self.widths) * (self.residual_blocks + 1)

    def width(self, layer: int) -> int:
        """Channels that a layer of the decoder puts out."""
        return int(self.widths[-1 - layer // (self.residual_blocks + 1)])

    def cell(self, layer: int) -> int:
        """Side, in latents, of what one place of a layer's hidden states stands for."""
        doubled = min((layer + 1) // (self.residual_blocks + 1), len(self.widths) - 1)
        return int(2 ** (len(self.widths) - 1 - doubled))


def _check_levels(shape: UNet, name: str, count: int) -> None:
    if count != len(shape.widths):
        raise ValueError(f"{name} needs as many entries as widths")


class StableDiffusionUNet(UNet, frozen=True, kw_only=True, tag="stable_diffusion"):
    """Shapes of a diffusers ``UNet2DConditionModel`` as Stable Diffusion 2 has it.

    All levels but the deepest have attention.
    """

    attention_heads: Sizes
    """By level."""
    text_dim: Positive
    text_tokens: Positive

    def __post_init__(self) -> None:
        _check_levels(self, "attention_heads", len(self.attention_heads))


class I2VGenUNet(UNet, frozen=True, kw_only=True, tag="i2vgen_xl"):
    """Shapes of a diffusers ``I2VGenXLUNet``, and what it is told beside the prompt."""

    head_dim: Positive
    text_dim: Positive
    text_tokens: Positive
    fps: PositiveReal
    """Frames a second."""


class StableVideoUNet(UNet, frozen=True, kw_only=True, tag="stable_video_diffusion"):
    """Shapes of a diffusers ``UNetSpatioTemporalConditionModel``, and what it is told."""

    attention_heads: Sizes
    """By level."""
    image_dim: Positive
    """Width of the token of an image that stands where others have their prompt."""
    condition_dim: Positive
    """Sines and cosines that stand for each of the three figures below."""
    fps: PositiveReal
    """Frames a second."""
    motion_bucket: PositiveReal
    noise_augmentation: Annotated[float, Meta(ge=0)]
    """Deviation of the noise that the conditioning frame is said to have; it gets none."""

    def __post_init__(self) -> None:
        _check_levels(self, "attention_heads", len(self.attention_heads))

    @property
    def text_dim(self) -> int:
        """Of that token."""
        return int(self.image_dim)

    @property
    def text_tokens(self) -> int:
        """One such token."""
        return 1


class AdmUNet(UNet, frozen=True, kw_only=True, tag="adm"):
    """Shapes of a diffusers ``UNet2DModel`` that is made like ADM; it works on pixels."""

    head_dim: Positive
    attention: Annotated[tuple[bool, ...], Meta(min_length=1)]
    """By level, whether there is any."""

    def __post_init__(self) -> None:
        _check_levels(self, "attention", len(self.attention))

    @property
    def text_dim(self) -> int:
        """It knows no prompt."""
        return 0

    @property
    def text_tokens(self) -> int:
        """It knows no prompt."""
        return 0


class _Encoder(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    latent_channels: Positive


class Convolutions(_Encoder, frozen=True, kw_only=True, tag="convolutions"):
    """Shapes of `vditrack_export.tiny.model.TinyEncoder`: one halving of the picture a width."""

    widths: Sizes

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(2 ** len(self.widths))

    @property
    def temporal_stride(self) -> int:
        """Frames that share one latent."""
        return 1

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent."""
        return (1,)


class WanAutoencoder(_Encoder, frozen=True, kw_only=True, tag="wan_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKLWan``, whose decoder mirrors its encoder."""

    image_channels: Positive
    """Of a picture, before patches become channels."""
    patch: Positive = 1
    """Side of the squares of pixels that become channels before the first level."""
    base_width: Positive
    decoder_base_width: Positive | None = None
    """Where it is not the encoder's."""
    multiples: Sizes
    """Of the base width, by level; between two levels the picture is halved."""
    residual_blocks: Positive
    """In a level of the encoder; the decoder has one more."""
    temporal_downsample: tuple[bool, ...]
    """By step from level to level, whether time is halved too."""
    residual: bool = False
    """Whether a shortcut that averages goes around each level, as in Wan2.2-TI2V-5B."""

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.multiples) - 1:
            raise ValueError("temporal_downsample needs one entry fewer than multiples")

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(self.patch * 2 ** len(self.temporal_downsample))

    @property
    def temporal_stride(self) -> int:
        """Frames that share one latent natively."""
        return int(2 ** sum(self.temporal_downsample))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent; shortcuts that average frames cannot be left out."""
        return (self.temporal_stride,) if self.residual else (1, self.temporal_stride)


class CogVideoXAutoencoder(_Encoder, frozen=True, kw_only=True, tag="cogvideox_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKLCogVideoX``."""

    image_channels: Positive
    widths: Sizes
    """By level; between two levels the picture is halved."""
    residual_blocks: Positive
    """In a level of the encoder; the decoder has one more."""
    temporal_stride: Literal[4]
    """Frames that share one latent natively."""

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent."""
        return (1, self.temporal_stride)


class LtxAutoencoder(_Encoder, frozen=True, kw_only=True, tag="ltx_autoencoder"):
    """Shapes of the encoder of a diffusers ``AutoencoderKLLTXVideo``, of LTX-Video 0.9.0 and 0.9.1.

    The decoder has others, which nothing here needs.
    """

    image_channels: Positive
    patch: Positive
    """Side of the squares of pixels that become channels before the first level."""
    widths: Sizes
    """By level."""
    downsample: tuple[bool, ...]
    """By level, whether it ends by halving rows, columns and frames, all at once."""
    residual_blocks: Sizes
    """By level, then those in the middle."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if (len(self.downsample), len(self.residual_blocks)) != (levels, levels + 1):
            raise ValueError(
                "downsample needs as many entries as widths, and residual_blocks one more"
            )
        # The transformer counts on these where it places latents in space and time.
        if (self.stride, self.temporal_stride) != (32, 8):
            raise ValueError("patch and downsample do not make latents of 32 pixels and 8 frames")

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(self.patch * 2 ** sum(self.downsample))

    @property
    def temporal_stride(self) -> int:
        """Frames that share one latent."""
        return int(2 ** sum(self.downsample))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent; one convolution halves them and the picture."""
        return (self.temporal_stride,)


class HunyuanVideoAutoencoder(_Encoder, frozen=True, kw_only=True, tag="hunyuan_video_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKLHunyuanVideo``."""

    image_channels: Positive
    widths: tuple[Positive, Positive, Positive, Positive]
    """By level; between two levels the picture is halved."""
    residual_blocks: Positive
    """In a level of the encoder; the decoder has one more."""
    temporal_stride: Literal[4]
    """Frames that share one latent natively."""

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent."""
        return (1, self.temporal_stride)


class KlAutoencoder(_Encoder, frozen=True, kw_only=True, tag="kl_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKL``, or of an ``AutoencoderKLTemporalDecoder``.

    Both encode each frame alone, and alike.
    """

    image_channels: Positive
    widths: Sizes
    """By level; between two levels the picture is halved."""
    residual_blocks: Positive
    """In a level of the encoder; the decoder has one more."""
    scaling_factor: PositiveReal
    """Of the latents, as the UNet sees them."""
    temporal_decoder: bool = False
    """Whether it is an ``AutoencoderKLTemporalDecoder``."""

    @property
    def stride(self) -> int:
        """Side of a latent cell, in pixels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent."""
        return (1,)


class Pixels(_Encoder, frozen=True, kw_only=True, tag="pixels"):
    """No encoder: red, green and blue in [-1, 1] are the latents."""

    latent_channels: Literal[3]

    @property
    def stride(self) -> int:
        """A latent cell is a pixel."""
        return 1

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames that may share one latent."""
        return (1,)


Autoencoder = (
    WanAutoencoder | CogVideoXAutoencoder | LtxAutoencoder | HunyuanVideoAutoencoder | KlAutoencoder
)


class _TextEncoder(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    layers: Positive
    width: Positive
    heads: Positive
    head_dim: Positive
    feed_forward: Positive
    vocabulary: Positive


class Umt5(_TextEncoder, frozen=True, kw_only=True, tag="umt5"):
    """Shapes of a transformers ``UMT5EncoderModel`` with gated feed-forward networks."""


class T5(_TextEncoder, frozen=True, kw_only=True, tag="t5"):
    """Shapes of a transformers ``T5EncoderModel``."""

    gated: bool
    """Whether its feed-forward networks are gated."""


class Llama(_TextEncoder, frozen=True, kw_only=True, tag="llama"):
    """Shapes of a transformers ``LlamaModel``; a ``CLIPTextModel`` beside it pools the prompt."""


class Clip(_TextEncoder, frozen=True, kw_only=True, tag="clip"):
    """Shapes of a transformers ``CLIPTextModel``."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read of the same checkpoint for another purpose than tracking points."""

    input: Input
    feature: Feature


class Masks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How object masks are propagated (TED, arXiv 2512.02339)."""

    motion: Part | None = None
    """Read at high noise over a window of frames; None where motion is the displacement of what is
    read for appearance."""
    appearance: Part
    """Read at low noise of single frames."""
    propagation: Propagation

    @property
    def own_motion(self) -> Part:
        """Where motion is read.

        Raises:
            InputError: nowhere.

        """
        if self.motion is None:
            raise InputError(
                "the card reads motion of where appearance goes (masks.propagation.displacement), "
                "not of the model: there is nothing to select. Give it [masks.motion] instead."
            )
        return self.motion

    def __post_init__(self) -> None:
        if self.appearance.input.frames != 1:
            raise ValueError("appearance is read of single frames: frames are not 1")
        if (self.motion is None) == (self.propagation.displacement is None):
            raise ValueError("motion is either a part of its own, or a displacement: give one")


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backbone: its checkpoint, the input it is exported for, and how its features match."""

    name: Annotated[str, Meta(min_length=1)]
    checkpoint: str
    licence: str
    notes: str
    input: Input
    transformer: (
        WanTransformer
        | CogVideoXTransformer
        | CosmosTransformer
        | LtxTransformer
        | HunyuanVideoTransformer
        | StableDiffusionUNet
        | I2VGenUNet
        | StableVideoUNet
        | AdmUNet
    )
    """The network that is read: a transformer, or a UNet."""
    encoder: Convolutions | Pixels | Autoencoder
    text_encoder: Umt5 | T5 | Llama | Clip | None = None
    """Of the checkpoint's own pipeline; without one the prompt is a constant."""
    feature: Feature
    matching: Matching
    masks: Masks | None = None
    """None where masks are not propagated with this checkpoint."""

    @property
    def cell(self) -> int:
        """Side of a cell of the descriptors' grid, in pixels."""
        shape = self.transformer
        side = shape.cell(self.feature.block) if isinstance(shape, UNet) else shape.patch[1]
        return self.encoder.stride * side

    def __post_init__(self) -> None:
        shape, size = self.transformer, self.input
        strides = self.encoder.temporal_strides
        claims = [
            *(_unet_claims(self, shape) if isinstance(shape, UNet) else _claims(self, shape)),
            (
                shape.in_channels == self.encoder.latent_channels,
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
                self.feature.timestep >= 0 or isinstance(shape, StableVideoUNet),
                "timestep is less than 0",
            ),
        ]
        for holds, complaint in claims:
            if not holds:
                raise ValueError(complaint)


def _claims(card: Card, shape: Transformer) -> list[tuple[bool, str]]:
    feature = card.feature
    return [
        (
            not isinstance(shape, HunyuanVideoTransformer)
            or not 0 <= feature.block - shape.layers < shape.single_layers,
            f"block {feature.block} has a single stream, which cannot be cut: give one of "
            f"the {shape.layers} before",
        ),
        (feature.block < shape.layers, "block is not one of the transformer's"),
        (max(feature.heads) < shape.heads, "heads are not the transformer's"),
    ]


def _unet_claims(card: Card, shape: UNet) -> list[tuple[bool, str]]:
    feature, size = card.feature, card.input
    side = card.encoder.stride * 2 ** (len(shape.widths) - 1)
    whole = feature.heads == (0,) and feature.frequency_range == (0.0, 1.0)
    return [
        (
            feature.block < shape.layers,
            f"block is not one of the {shape.layers} layers of the decoder",
        ),
        (
            feature.tensor == "hidden" and whole,
            'of a UNet hidden states are read, whole: give tensor = "hidden", heads = [0] and '
            "frequency_range = [0.0, 1.0]",
        ),
        (
            not isinstance(shape, AdmUNet) or size.height % side == size.width % side == 0,
            f"{size.height} x {size.width} pixels do not divide into squares of {side}, which the "
            "deepest level needs",
        ),
    ]


def transformer_of(card: Card) -> Transformer:
    """Shapes of a card's transformer.

    Raises:
        InputError: it has a UNet.

    """
    if isinstance(card.transformer, UNet):
        raise InputError(
            f"card {card.name}: it has a UNet, which is only exported, as its card says. Give a "
            "card of a transformer."
        )
    return card.transformer


def load_card(name_or_path: str) -> Card:
    """Read a card that comes with vditrack, by name, or any other, by path.

    Raises:
        InputError: there is no such card, or it is not one.

    """
    path = card_path(name_or_path)
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise InputError(f"card {path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"card {path}: {error}. Correct it there.") from error


def card_path(name_or_path: str) -> Path:
    """Return the file of a card: by name of one that comes with vditrack, of any other its path.

    Raises:
        InputError: no card has that name.

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
