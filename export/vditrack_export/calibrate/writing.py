"""Writing calibrated weights of visibility into a card."""

from pathlib import Path

import msgspec

from vditrack.atomic_files import check_file_destination
from vditrack.bundle.configuration import FlowTracking, Visibility
from vditrack.errors import InputError
from vditrack_export.card import Card, load_card
from vditrack_export.card_edit import edit_section, read_document, save_card

_SECTION = "matching.flow_tracking.visibility"


def check_card(path: Path, name: str) -> None:
    """Check that weights can be written to a card.

    Args:
        path: path of the card.
        name: name of the card that the bundle was exported from.

    Raises:
        InputError: the file is not a card or cannot be written, or the card has another name or no
            ``[matching.flow_tracking]``.

    """
    if path.suffix != ".toml":
        raise InputError(f"--write {path} is not a card. Give the path of a .toml file.")
    card = load_card(str(path))
    check_file_destination(path)
    _require_flow_tracking(card, path)
    if card.name != name:
        raise InputError(
            f"card {path} is named {card.name}, but the bundle was exported from {name}. Weights "
            "hold for the features of one model. Give the card of this bundle."
        )


def write_weights(path: Path, weights: Visibility, origin: str) -> None:
    """Write weights into ``[matching.flow_tracking.visibility]`` of a card; all else in it stays.

    Args:
        path: path of a card that `check_card` accepts.
        weights: the weights, rounded to the digits that are written.
        origin: one line that says what the weights were fitted on; it becomes a comment.

    Raises:
        InputError: the section cannot be edited; the card is left as it is.

    """
    card = load_card(str(path))
    flow_tracking = msgspec.structs.replace(_require_flow_tracking(card, path), visibility=weights)
    matching = msgspec.structs.replace(card.matching, flow_tracking=flow_tracking)
    wanted = msgspec.structs.replace(card, matching=matching)
    document = read_document(path)
    edit_section(document, _SECTION, msgspec.structs.asdict(weights), f'"calibrate": {origin}')
    save_card(document, wanted, path.resolve(), (path, [_SECTION]))


def _require_flow_tracking(card: Card, path: Path) -> FlowTracking:
    if card.matching.flow_tracking is None:
        raise InputError(
            f"card {path} has no [matching.flow_tracking]. Add that section and export the card "
            "again."
        )
    return card.matching.flow_tracking
