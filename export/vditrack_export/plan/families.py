"""What the planner needs to know of each family of transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.cogvideox.shapes import CogVideoXTransformer
from vditrack_export.families.cosmos.shapes import CosmosTransformer
from vditrack_export.families.rotary import cosmos_channels, low_frequency_channels, wan_rotary_axes
from vditrack_export.families.wan.shapes import WanTransformer
from vditrack_export.plan import cogvideox, cosmos, wan
from vditrack_export.plan.trace import Cost


@dataclass(frozen=True)
class Family:
    """How one family is counted."""

    whole: Callable[..., Cost]
    """One pass of the whole transformer, from its shapes and the size of the latents."""
    truncated: Callable[..., Cost]
    """The path into one block, from the same and what is read."""
    channels: Callable[[int, Feature], Sequence[int]]
    """Channels of a head that a card's frequency range keeps."""


def family_of(card: Card) -> Family:
    """Return the family of a card's transformer.

    Raises:
        InputError: it is one that cannot be planned.

    """
    family = _FAMILIES.get(type(card.transformer))
    if family is None:
        raise InputError(
            f"card {card.name}: plan does not know its family of transformers yet. Plan a card of "
            "Wan, CogVideoX or Cosmos."
        )
    return family


def _wan_channels(head_dim: int, feature: Feature) -> list[int]:
    return low_frequency_channels(wan_rotary_axes(head_dim), feature.frequency_range)


def _cogvideox_channels(head_dim: int, feature: Feature) -> list[int]:
    side = 3 * (head_dim // 8)
    return low_frequency_channels((head_dim // 4, side, side), feature.frequency_range)


def _cosmos_channels(head_dim: int, feature: Feature) -> list[int]:
    return cosmos_channels(head_dim, feature.frequency_range, feature.frequency_layout)


_FAMILIES: dict[type, Family] = {
    WanTransformer: Family(wan.whole_transformer, wan.truncated_path, _wan_channels),
    CogVideoXTransformer: Family(
        cogvideox.whole_transformer, cogvideox.truncated_path, _cogvideox_channels
    ),
    CosmosTransformer: Family(cosmos.whole_transformer, cosmos.truncated_path, _cosmos_channels),
}
