"""What each part of tracking costs, and each part of the pipeline it is cut out of."""

from dataclasses import dataclass, replace
from functools import lru_cache

from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.families.cogvideox.shapes import CogVideoXAutoencoder
from vditrack_export.families.text_encoders import Clip, Llama
from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.families.wan.shapes import WanAutoencoder
from vditrack_export.plan.cogvideox_vae import cogvideox_decoder, cogvideox_encoder
from vditrack_export.plan.convolutions import convolutional_encoder
from vditrack_export.plan.families import family_of
from vditrack_export.plan.layers import LatentSize, Reading, patch_grid
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.t5 import text_encoder
from vditrack_export.plan.trace import Cost, Fusion
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
    side = card.cell
    if setting.height % side or setting.width % side:
        raise InputError(
            f"card {card.name}: {setting.height} x {setting.width} pixels do not divide into "
            f"cells of {side}. Correct it there."
        )


def card_setting(card: Card) -> Setting:
    """Return the setting that a card is exported for."""
    size = card.input
    return Setting(size.height, size.width, size.frames, size.temporal_stride)


def latent_size(card: Card, setting: Setting) -> LatentSize:
    """Frames, rows and columns of the latents of a window."""
    side = card.encoder.stride
    return setting.latent_frames, setting.height // side, setting.width // side


@lru_cache(maxsize=1024)
def tracking_costs(
    card: Card, setting: Setting, *, described: int, new_frames: int, points: int, fusion: Fusion
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
        fusion: as in `vditrack_export.plan.trace.Trace`.

    """
    reading = _reading(card, described)
    shape = card.transformer.require_transformer()
    _, rows, columns = patch_grid(shape, latent_size(card, setting))
    grid = Grid(rows, columns, setting.height // rows)
    channels = reading.heads * reading.channels
    return {
        "encoder": _encoder(card, setting, new_frames, fusion),
        "transformer": _truncated(card, setting, reading, fusion),
        "matching": matching_cost(grid, channels, points, card.matching).times(new_frames),
    }


@lru_cache(maxsize=64)
def reference_costs(card: Card, setting: Setting, *, fusion: Fusion) -> dict[str, Cost]:
    """One denoising step of the whole pipeline, as HeFT runs it, by part; matching left out.

    Without a text encoder there is nothing to guide by, and the transformer runs once.
    """
    transformer = _whole(card, setting, fusion)
    costs = {"encoder": _encoder(card, setting, setting.frames, fusion)}
    # Those of Llama and Clip are families that are refused above.
    if card.text_encoder is None or isinstance(card.text_encoder, (Llama, Clip)):
        return costs | {"transformer": transformer}
    prompt = text_encoder(card.text_encoder, card.transformer.text_tokens, fusion=fusion)
    costs["text encoder"] = prompt.times(_GUIDANCE_PASSES)
    costs["transformer"] = transformer.times(_GUIDANCE_PASSES)
    latents, compressed = latent_size(card, setting), setting.temporal_stride > 1
    if isinstance(card.encoder, WanAutoencoder):
        costs["decoder"] = wan_decoder(card.encoder, latents, compressed=compressed, fusion=fusion)
    if isinstance(card.encoder, CogVideoXAutoencoder):
        costs["decoder"] = cogvideox_decoder(
            card.encoder, latents, compressed=compressed, fusion=fusion
        )
    return costs


def transformer_share(card: Card) -> float:
    """Operations of the path that is kept, over those of one pass of the whole transformer.

    Both take one window as the card's input says: without guidance, on the same latents.

    Raises:
        InputError: the card's transformer is of a family that cannot be planned, or its picture
            does not divide into cells.

    """
    setting = card_setting(card)
    check_setting(card, setting)
    kept = _truncated(card, setting, _reading(card, card.input.described_latents), fusion="all")
    return kept.operations / _whole(card, setting, fusion="all").operations


def _whole(card: Card, setting: Setting, fusion: Fusion) -> Cost:
    return family_of(card).whole(card.transformer, latent_size(card, setting), fusion=fusion)


def _truncated(card: Card, setting: Setting, reading: Reading, fusion: Fusion) -> Cost:
    latents = latent_size(card, setting)
    return family_of(card).truncated(card.transformer, latents, reading, fusion=fusion)


def _reading(card: Card, described: int) -> Reading:
    feature = card.feature
    return Reading(
        block=feature.block,
        heads=len(feature.heads),
        channels=len(card.family.denoiser.channels(feature)),
        described=described,
        tensor=feature.tensor,
    )


def _encoder(card: Card, setting: Setting, new_frames: int, fusion: Fusion) -> Cost:
    """Of one window; where few frames are new, its caches know the others."""
    encoder, area = card.encoder, (setting.height, setting.width)
    if isinstance(encoder, Convolutions):
        return convolutional_encoder(encoder, (1, *area), fusion=fusion).times(new_frames)
    compressed = setting.temporal_stride > 1
    if isinstance(encoder, CogVideoXAutoencoder):
        # Its norms look at all frames of a window, and windows share no latents.
        window = (setting.frames, *area)
        return cogvideox_encoder(encoder, window, compressed=compressed, fusion=fusion)
    if not isinstance(encoder, WanAutoencoder):
        raise InputError(
            f"card {card.name}: plan does not know its encoder yet. Plan a card of Wan, CogVideoX "
            "or Cosmos."
        )

    def encoding(frames: int) -> Cost:
        return wan_encoder(encoder, (frames, *area), compressed=compressed, fusion=fusion)

    whole = encoding(setting.frames)
    if new_frames >= setting.frames - 1:
        return whole
    more = encoding(setting.frames + new_frames)
    return replace(
        whole,
        operations=more.operations - whole.operations,
        moved=more.moved - whole.moved,
    )
