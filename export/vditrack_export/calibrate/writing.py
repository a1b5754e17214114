"""A card with other weights of visibility: its text edited, so that all else in it stays."""

import re
import textwrap
from pathlib import Path

import msgspec

from vditrack.atomic_files import staged_file
from vditrack.bundle.manifest import Holding, Visibility
from vditrack.errors import InputError
from vditrack_export.card import Card, load_card

_SECTION = re.compile(r"^\[matching\.holding\.visibility\][ \t]*(#[^\n]*)?\n", re.MULTILINE)
_NEXT_SECTION = re.compile(r"^\[", re.MULTILINE)
_ORIGIN = '"calibrate": '
_TOLD = re.compile(rf"\A# {_ORIGIN}[^\n]*\n(#   [^\n]*\n)*")
"""What an earlier calibration said of itself."""
_WIDTH = 100


def check_card(path: Path, name: str) -> None:
    """Refuse a card that weights cannot be written to.

    Args:
        path: of the card.
        name: of the card that the bundle was exported from.

    Raises:
        InputError: it is no card, another one's, or has no ``[matching.holding]``.

    """
    if path.suffix != ".toml":
        raise InputError(f"--write {path} is no card. Give the path of a .toml file.")
    card = load_card(str(path))
    _holding(card, path)
    if card.name != name:
        raise InputError(
            f"card {path} is named {card.name}, but the bundle was exported from {name}. Weights "
            "are of one model's features: give that one's card."
        )


def write_weights(path: Path, weights: Visibility, origin: str) -> None:
    """Put weights into ``[matching.holding.visibility]`` of a card.

    Args:
        path: of the card, which `check_card` accepts.
        weights: rounded as they are to be read.
        origin: one line for a comment: what they were fitted on.

    Raises:
        InputError: the card is written in a way that cannot be edited; it stays as it is.

    """
    card = load_card(str(path))
    holding = msgspec.structs.replace(_holding(card, path), visibility=weights)
    matching = msgspec.structs.replace(card.matching, holding=holding)
    wanted = msgspec.structs.replace(card, matching=matching)
    with staged_file(path.resolve()) as staged:
        text = path.read_bytes().decode("utf-8")
        staged.write_bytes(_edited(text, weights, origin).encode("utf-8"))
        if load_card(str(staged)) != wanted:
            raise InputError(
                f"card {path} is written in a way that cannot be edited. Write a value a line "
                "under [matching.holding.visibility]."
            )


def _holding(card: Card, path: Path) -> Holding:
    if card.matching.holding is None:
        raise InputError(f"card {path} has no [matching.holding]. Add it, and export it again.")
    return card.matching.holding


def _edited(text: str, weights: Visibility, origin: str) -> str:
    begin = _SECTION.search(text)
    if begin is None:
        return text
    end = _NEXT_SECTION.search(text, begin.end())
    last = end.start() if end else len(text)
    section = _TOLD.sub("", text[begin.end() : last])
    for name, value in msgspec.structs.asdict(weights).items():
        section = re.sub(rf"^({name}[ \t]*=[ \t]*)[^\s#]+", rf"\g<1>{value!r}", section, flags=re.M)
    told = textwrap.fill(_ORIGIN + origin, _WIDTH, initial_indent="# ", subsequent_indent="#   ")
    return f"{text[: begin.end()]}{told}\n{section}{text[last:]}"
