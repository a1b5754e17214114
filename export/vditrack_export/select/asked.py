"""What a user asks to be tried, as the command line has it."""

from vditrack.errors import InputError
from vditrack_export.card import Card

_NOISE = (0.05, 0.1, 0.2, 0.4)
_BANDS = ((0.0, 1.0), (0.15, 1.0), (0.4, 1.0), (0.6, 1.0))


def asked_blocks(text: str | None, layers: int) -> tuple[int, ...]:
    """Read blocks, as in 0,8,16-20; all of so many layers where nothing is asked.

    Raises:
        InputError: the text is no such list, or the transformer has not such a block.

    """
    if text is None:
        return tuple(range(layers))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            found.update(range(int(first), int(last if dash else first) + 1))
        except ValueError as error:
            raise InputError(f"--blocks {text} is no list of blocks, as in 0-4 or 0,8.") from error
    if not found or max(found) >= layers:
        raise InputError(f"--blocks {text}: the transformer has blocks 0 to {layers - 1}.")
    return tuple(sorted(found))


def asked_levels(text: str | None, card: Card) -> tuple[float, ...]:
    """Read noise levels, as in 0.05,0.1; the card's own and some others where nothing is asked.

    Raises:
        InputError: the text is no such list, or a level is not between 0 and 1.

    """
    if text is None:
        return tuple(sorted({card.feature.noise_level, *_NOISE}))
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"--noise {text} is no list of levels, as in 0.05,0.1.") from error
    # Written so that NaN is refused too.
    if not all(0 < level < 1 for level in levels):
        raise InputError(f"--noise {text}: give levels between 0 and 1.")
    return tuple(levels)


def asked_bands(text: str | None, card: Card) -> tuple[tuple[float, float], ...]:
    """Read ranges of frequencies, as in 0-1,0.4-1; the card's own and some where none is asked.

    Raises:
        InputError: the text is no such list, or a range is no part of 0-1.

    """
    if text is None:
        return (card.feature.frequency_range, *_BANDS)
    found = []
    for part in text.split(","):
        try:
            low, high = (float(end) for end in part.split("-"))
        except ValueError as error:
            raise InputError(f"--bands {text} is no list of bands, as in 0-1,0.4-1.") from error
        if not 0 <= low < high <= 1:
            raise InputError(f"--bands {text}: {part} is no part of 0-1.")
        found.append((low, high))
    return tuple(found)
