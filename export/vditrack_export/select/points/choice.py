"""A new card with another choice: the text of the old one, edited so that its comments stay."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack_export.card import Card, Feature, card_path, load_card

if TYPE_CHECKING:
    from vditrack_export.select.points.scores import Choice

_NEXT_SECTION = re.compile(r"^\[[A-Za-z_.]+\][ \t]*(#[^\n]*)?$", re.MULTILINE)
_WIDTH = 100
_LONGEST = 30
"""Letters of an old value that a comment still repeats."""


def check_destination(destination: Path) -> None:
    """Refuse a place for a new card where there is one, or that no card is read from.

    Raises:
        InputError: it has no name that ends in .toml, or something is there.

    """
    if destination.suffix != ".toml":
        raise InputError(f"--write {destination} is no card. Give a name that ends in .toml.")
    shipped = Path(str(resources.files("vditrack.models"))).resolve()
    if destination.exists() and destination.resolve().parent == shipped:
        raise InputError(
            f"{destination} comes with vditrack and stays as it is. Give another name."
        )
    if destination.exists():
        raise InputError(f"{destination} is there already. Give another name with --write.")


def write_card(
    name_or_path: str, wanted: Card, sections: Sequence[str], chosen_by: str, destination: Path
) -> None:
    """Write a card in which something was chosen.

    Args:
        name_or_path: of the card to begin with.
        wanted: what the new one says.
        sections: that were chosen, such as ``feature`` or ``masks.motion.feature``; nothing else
            of the card is another.
        chosen_by: one line for a comment in each: by what it was chosen.
        destination: file that does not exist yet.

    Raises:
        InputError: see `check_destination`; or the old card is written in a way that cannot be
            edited.

    """
    check_destination(destination)
    old = load_card(name_or_path)
    text = card_path(name_or_path).read_text(encoding="utf-8")
    for section in sections:
        text = _edited(text, section, old, wanted, chosen_by)
    with staged_file(destination) as path:
        path.write_text(text, encoding="utf-8")
        if load_card(str(path)) != wanted:
            raise InputError(
                f"card {name_or_path} is written in a way that cannot be edited. Write a value a "
                f"line under {' and '.join(f'[{section}]' for section in sections)}."
            )


def chosen_feature(feature: Feature, choice: Choice) -> Feature:
    """Return what a card reads with a choice in the place of its own."""
    return msgspec.structs.replace(
        feature,
        block=choice.block,
        heads=choice.heads,
        selected=True,
        frequency_range=choice.frequency_range,
        timestep=choice.denoising.timestep,
        signal_level=choice.denoising.signal,
        noise_level=choice.denoising.noise,
    )


def _edited(text: str, section: str, old: Card, wanted: Card, chosen_by: str) -> str:
    head = re.compile(rf"^\[{re.escape(section)}\][ \t]*(#[^\n]*)?\n", re.MULTILINE)
    begin = head.search(text)
    if begin is None:
        return text
    end = _NEXT_SECTION.search(text, begin.end())
    last = end.start() if end else len(text)
    body = text[begin.end() : last]
    before, after = (_values(card, section) for card in (old, wanted))
    for key, value in after.items():
        if value != before[key]:
            body = _replaced(body, key, value)
    told = textwrap.fill(
        f'"select": {chosen_by}', _WIDTH, initial_indent="# ", subsequent_indent="# "
    )
    return f"{text[: begin.end()]}{told}\n{body}{text[last:]}"


def _values(card: Card, section: str) -> dict[str, object]:
    values = msgspec.to_builtins(card)
    for name in section.split("."):
        values = values[name]
    return dict(values)


def _replaced(section: str, key: str, value: object) -> str:
    """Put a value in the place of another; the comment keeps what there was, and why."""
    line = re.compile(
        rf"^{key}[ \t]*=[ \t]*(?P<old>\[[^\]]*\]|[^#\n]*?)[ \t]*(#[ \t]*(?P<why>[^\n]*))?$",
        re.MULTILINE,
    )

    def replace(found: re.Match[str]) -> str:
        was = " ".join(found["old"].split())
        was = was if len(was) <= _LONGEST else "others"
        why = f" ({found['why'].strip()})" if found["why"] else ""
        return f"{key} = {_toml(value)}  # select; was {was}{why}"

    return line.sub(replace, section, count=1)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
