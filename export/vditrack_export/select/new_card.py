"""A new card in which something was chosen: a copy of the old one's text, with its comments."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from vditrack_export.card import Card, card_path
from vditrack_export.card_edit import edit_section, read_document, save_card
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.read_spec import Denoising
from vditrack_export.select.options import check_destination

_LONGEST = 30
"""The number of characters of an old value up to which a comment repeats it."""


def write_card(
    name_or_path: str, wanted: Card, sections: Sequence[str], chosen_by: str, destination: Path
) -> None:
    """Write a card in which something was chosen.

    Args:
        name_or_path: the name or path of the card to begin with.
        wanted: the new card.
        sections: the sections in which the new card differs, such as ``feature`` or
            ``masks.motion.feature``.
        chosen_by: one line that says how the values were chosen; it becomes a comment in each
            section.
        destination: a file that does not exist yet.

    Raises:
        InputError: the destination is refused (see `check_destination`), or a section of the old
            card cannot be edited.

    """
    check_destination(destination)
    source = card_path(name_or_path)
    document = read_document(source)
    for section in sections:
        remark = f'"select": {chosen_by}'
        edit_section(document, section, _section_values(wanted, section), remark, _changed_comment)
    save_card(document, wanted, destination, (source, sections))


def replace_reading(feature: Feature, block: int, denoising: Denoising) -> Feature:
    """Return feature settings with a chosen block and denoising step."""
    return msgspec.structs.replace(
        feature,
        block=block,
        selected=True,
        timestep=denoising.timestep,
        signal_level=denoising.signal,
        noise_level=denoising.noise,
    )


def _section_values(card: Card, section: str) -> dict[str, object]:
    values = msgspec.to_builtins(card)
    for name in section.split("."):
        values = values[name]
    return dict(values)


def _changed_comment(old_text: str, old_comment: str) -> str:
    """Return a comment that says what the value was before, and the old comment."""
    old = " ".join(old_text.split())
    old = old if len(old) <= _LONGEST else "others"
    reason = f" ({old_comment})" if old_comment else ""
    return f"select; was {old}{reason}"
