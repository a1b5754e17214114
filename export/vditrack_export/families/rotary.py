"""Which channels of an attention head carry low rotary frequencies (HeFT, point 3)."""

from typing import Literal

from vditrack.errors import InputError

RotaryAxes = tuple[int, int, int]
FrequencyLayout = Literal["rotary", "reference"]


def wan_rotary_axes(head_dim: int) -> RotaryAxes:
    """Return the channels of a Wan head that rotate with time, height and width.

    Within an axis, channels 2i and 2i + 1 rotate together at theta**(-2i / channels of the axis):
    the frequency falls with the channel.
    """
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def low_frequency_channels(axes: RotaryAxes, frequency_range: tuple[float, float]) -> list[int]:
    """Return the channels of a head between two fractions of each axis.

    Fractions count from the highest frequency. Only whole pairs are kept. Both ends are rounded
    down, so that adjacent ranges share no channel and miss none.

    Raises:
        InputError: The range has not even one pair of channels.

    """
    kept: list[int] = []
    first = 0
    for channels in axes:
        low, high = (_pairs(fraction, channels) for fraction in frequency_range)
        kept.extend(range(first + 2 * low, first + 2 * high))
        first += channels
    if not kept:
        raise InputError(
            f"frequency_range {list(frequency_range)} keeps no channel of rotary axes "
            f"{list(axes)}. Widen it in the card."
        )
    return kept


def cosmos_channels(
    head_dim: int, frequency_range: tuple[float, float], layout: FrequencyLayout
) -> list[int]:
    """Return the channels of a Cosmos head between two fractions of each rotary axis.

    Cosmos divides a head among the axes as Wan does, but stores the halves of its pairs apart:
    channels i and i + head_dim / 2 rotate together, at a frequency that falls with i within an
    axis. The layout "rotary" keeps whole pairs by that frequency, as `low_frequency_channels` does.
    The layout "reference" returns the channels that would be right in Wan, as HeFT's reference
    slices them; in Cosmos these mix axes and frequencies, and may part a pair.

    Raises:
        InputError: The range has not even one pair of channels.

    """
    neighbours = low_frequency_channels(wan_rotary_axes(head_dim), frequency_range)
    if layout == "reference":
        return neighbours
    first = [channel // 2 for channel in neighbours[::2]]
    return first + [channel + head_dim // 2 for channel in first]


def _pairs(fraction: float, channels: int) -> int:
    # 0.29 * 100 is 28.999...: a boundary meant to be whole must not fall below itself.
    return int(round(fraction * channels / 2, 9))
