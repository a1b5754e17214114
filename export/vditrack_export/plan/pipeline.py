"""What each part of tracking costs, and each part of the pipeline it is cut out of."""

from dataclasses import dataclass, replace
from functools import lru_cache

from vditrack.errors import InputError
from vditrack.grid import Grid
from vditrack_export.card import Card, Convolutions, Umt5, WanAutoencoder, WanTransformer
from vditrack_export.frequencies import low_frequency_channels, wan_rotary_axes
from vditrack_export.plan.convolutions import convolutional_encoder
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.trace import Cost
from vditrack_export.plan.umt5 import text_encoder
from vditrack_export.plan.wan import LatentSize, patch_grid, truncated_path, whole_transformer
from vditrack_export.plan.wan_vae import wan_decoder, wan_encoder

# Classifier-free guidance runs text encoder and transformer with the prompt and without.
_GUIDANCE_PASSES = 2


@dataclass(frozen=True)
class Setting:
    """The window that the model sees, in pixels and frames, and how many frames share a latent."""

    height: int
    width: int
    frames: int
    temporal_stride: int

    @property
    def latent_frames(self) -> int:
        """Latents of one window; with temporal compression the first frame has its own."""
        return 1 + (self.frames - 1) // self.temporal_stride


def check_setting(card: Card, setting: Setting) -> None:
    """Refuse a setting that the card's model cannot take."""
    side = card.encoder.stride * card.transformer.patch[1]
    if setting.height % side or setting.width % side:
        raise InputError(
            f"card {card.name}: {setting.height} x {setting.width} pixels do not divide into "
            f"cells of {side}. Correct it there."
        )


def card_setting(card: Card) -> Setting:
    """Return the setting that a card is exported for."""
    size = card.input
    return Setting(size.height, size.width, size.frames, size.temporal_stride)


def temporal_strides(card: Card) -> tuple[int, ...]:
    """Frames that may share a latent: one, and what the encoder does natively."""
    encoder = card.encoder
    return (1, encoder.temporal_stride) if isinstance(encoder, WanAutoencoder) else (1,)


def wan_shapes(card: Card) -> WanTransformer:
    """Shapes of the transformer, of the one family that can be planned."""
    if not isinstance(card.transformer, WanTransformer):
        raise InputError(f"card {card.name}: plan knows Wan transformers only. Plan a Wan card.")
    return card.transformer


def latent_size(card: Card, setting: Setting) -> LatentSize:
    """Frames, rows and columns of the latents of a window."""
    side = card.encoder.stride
    return setting.latent_frames, setting.height // side, setting.width // side


@lru_cache(maxsize=1024)
def tracking_costs(
    card: Card, setting: Setting, *, described: int, new_frames: int, points: int, fused: bool
) -> dict[str, Cost]:
    """Cost of one window, by part.

    Args:
        card: the model.
        setting: the window.
        described: newest latent frames that get descriptors.
        new_frames: frames that were not in the window before. Where they are all but one, windows
            are encoded from their own beginning; else the encoder has seen the others already.
        points: tracked; every new frame is matched. With temporal compression the maps between
            latents are interpolated, which is elementwise.
        fused: as in `vditrack_export.plan.trace.Trace`.

    """
    shape, feature = wan_shapes(card), card.feature
    axes = wan_rotary_axes(shape.head_dim)
    kept = low_frequency_channels(axes, feature.frequency_range)
    channels = len(feature.heads) * len(kept)
    latents = latent_size(card, setting)
    _, rows, columns = patch_grid(shape, latents)
    grid = Grid(rows, columns, setting.height // rows)
    return {
        "encoder": _encoder(card, setting, new_frames, fused),
        "transformer": truncated_path(
            shape,
            latents,
            block=feature.block,
            described=described,
            channels=channels,
            tensor=feature.tensor,
            fused=fused,
        ),
        "matching": matching_cost(grid, channels, points, card.matching).times(new_frames),
    }


@lru_cache(maxsize=64)
def reference_costs(card: Card, setting: Setting, *, fused: bool) -> dict[str, Cost]:
    """One denoising step of the whole pipeline, as HeFT runs it, by part; matching left out.

    Without a text encoder there is nothing to guide by, and the transformer runs once.
    """
    latents = latent_size(card, setting)
    transformer = whole_transformer(wan_shapes(card), latents, fused=fused)
    costs = {"encoder": _encoder(card, setting, setting.frames, fused)}
    if not isinstance(card.text_encoder, Umt5):
        return costs | {"transformer": transformer}
    prompt = text_encoder(card.text_encoder, card.transformer.text_tokens, fused=fused)
    costs["text encoder"] = prompt.times(_GUIDANCE_PASSES)
    costs["transformer"] = transformer.times(_GUIDANCE_PASSES)
    if isinstance(card.encoder, WanAutoencoder):
        compressed = setting.temporal_stride > 1
        costs["decoder"] = wan_decoder(card.encoder, latents, compressed=compressed, fused=fused)
    return costs


def _encoder(card: Card, setting: Setting, new_frames: int, fused: bool) -> Cost:
    """Of one window; where few frames are new, its caches know the others."""
    encoder, area = card.encoder, (setting.height, setting.width)
    if isinstance(encoder, Convolutions):
        return convolutional_encoder(encoder, (1, *area), fused=fused).times(new_frames)
    if not isinstance(encoder, WanAutoencoder):
        raise InputError(f"card {card.name}: plan does not know its encoder yet. Plan a Wan card.")

    def encoding(frames: int) -> Cost:
        compressed = setting.temporal_stride > 1
        return wan_encoder(encoder, (frames, *area), compressed=compressed, fused=fused)

    whole = encoding(setting.frames)
    if new_frames >= setting.frames - 1:
        return whole
    more = encoding(setting.frames + new_frames)
    return replace(
        whole,
        operations=more.operations - whole.operations,
        moved=more.moved - whole.moved,
    )
