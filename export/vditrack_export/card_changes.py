"""Changes of a card by the command line, which `export` and `plan` share."""

import msgspec

from vditrack.cli.options import SIZE_ORDER, parse_size
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.families.base_shapes import TinyEncoderKind
from vditrack_export.window_changes import check_window, choose_described

_SAME_ASPECT = 0.15
"""Difference of aspect ratios up to which a size is one that is turned around."""


def change_card(
    card: Card,
    *,
    size: str | None = None,
    frames: int | None = None,
    described: int | None = None,
    temporal_stride: int | None = None,
    attention: str | None = None,
    block: int | None = None,
    heads: str | None = None,
) -> Card:
    """Return a card with values of the command line in place of its own; None keeps the card's.

    Args:
        card: The card.
        size: Size of the frames, ``WIDTHxHEIGHT``.
        frames: Frames in a window.
        described: Newest frames that get descriptors. Default: all of a window whose frames are
            given; with cached keys, the card's or those of one latent.
        temporal_stride: Frames that share a latent.
        attention: "window", "causal" or "cached".
        block: Block whose tensor is read.
        heads: Heads that are read, ``0,3,7``.

    Raises:
        InputError: A value is no such text, or the card would be invalid with it.

    """
    if size is not None:
        _check_cells(size, card)
    _check_temporal_stride(card, temporal_stride)
    check_window(card, frames, described, temporal_stride, attention)
    changes: dict[str, dict[str, object]] = {
        "input": {
            **_read_size(size, card),
            "frames": frames,
            "described_frames": choose_described(
                card, frames, described, temporal_stride, attention
            ),
            "temporal_stride": temporal_stride,
            "attention": attention,
        },
        "feature": {"block": block, "heads": _parse_heads(heads)},
    }
    try:
        # Converted from plain data, so that all rules of the card are checked again.
        plain = msgspec.to_builtins(card)
        for section, values in changes.items():
            given = {name: value for name, value in values.items() if value is not None}
            plain[section] |= given
        return msgspec.convert(plain, Card)
    except msgspec.ValidationError as error:
        raise InputError(f"card {card.name}, as changed: {error}.") from error


def replace_encoder(card: Card, kind: TinyEncoderKind | None) -> Card:
    """Return a card with a tiny encoder in place of the checkpoint's own; None keeps the card's.

    Raises:
        InputError: No encoder of this kind gives the latents of the card.

    """
    if kind is None:
        return card
    try:
        return msgspec.structs.replace(card, tiny_encoder=kind)
    except ValueError as error:
        raise InputError(f"card {card.name}: {error}.") from error


def _read_size(text: str | None, card: Card) -> dict[str, object]:
    """Return the height and width of a text ``WIDTHxHEIGHT``.

    Raises:
        InputError: The text is not such a size, or it has the card's aspect turned around, as if
            the height came first.

    """
    if text is None:
        return {}
    width, height = parse_size(text)
    aspect, own = width / max(height, 1), card.input.width / card.input.height
    turned = (aspect - 1) * (own - 1) < 0 and abs(1 / max(aspect, 1e-9) / own - 1) < _SAME_ASPECT
    if turned:
        raise InputError(
            f"--size {text} is {width} pixels wide and {height} high, the card's frames are "
            f"{card.input.width} wide and {card.input.height} high. The order is {SIZE_ORDER}: "
            f"give --size {height}x{width}. For the other orientation, set width and height in a "
            "copy of the card."
        )
    return {"height": height, "width": width}


def _check_cells(text: str, card: Card) -> None:
    """Check that a size divides into the card's cells.

    Raises:
        InputError: It does not; the message has the nearest size that does.

    """
    sides, cell = parse_size(text), card.cell
    if any(side % cell for side in sides):
        width, height = (max(1, (side + cell // 2) // cell) * cell for side in sides)
        raise InputError(
            f"--size {text} does not divide into cells of {cell} pixels, which card {card.name} "
            f"has. The nearest size that does is {width}x{height}."
        )


def _check_temporal_stride(card: Card, stride: int | None) -> None:
    """Check that the card's encoder has a temporal stride.

    Raises:
        InputError: It has not; the message says which it has.

    """
    strides = card.encoder.temporal_strides
    if stride is not None and stride not in strides:
        raise InputError(
            f"--temporal-stride {stride}: card {card.name} allows {' or '.join(map(str, strides))}."
        )


def _parse_heads(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(head) for head in text.split(",")]
    except ValueError as error:
        raise InputError(f"--heads {text} is not a list of numbers, such as 0,3,7.") from error
