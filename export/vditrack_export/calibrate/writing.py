"""Writing calibrated weights into a card."""

from pathlib import Path

import msgspec
from tomlkit import TOMLDocument, parse

from vditrack.atomic_files import check_file_destination
from vditrack.bundle.configuration import FlowTracking, Visibility
from vditrack.bundle.path_choice import PathChoice
from vditrack.errors import InputError
from vditrack_export.card import Card, load_card
from vditrack_export.card_edit import edit_section, read_document, save_card

_SECTION = "matching.flow_tracking.visibility"
_PATHS = "matching.flow_tracking.paths"


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


def write_weights(
    path: Path, weights: Visibility, origin: str, paths: PathChoice | None = None
) -> None:
    """Write weights into ``[matching.flow_tracking.visibility]`` of a card; all else in it stays.

    Args:
        path: path of a card that `check_card` accepts.
        weights: the weights, rounded to the digits that are written.
        origin: one line that says what the weights were fitted on; it becomes a comment.
        paths: the weights of paths, for ``[matching.flow_tracking.paths]``; None to leave those.

    Raises:
        InputError: the section cannot be edited; the card is left as it is.

    """
    card = load_card(str(path))
    flow_tracking = msgspec.structs.replace(_require_flow_tracking(card, path), visibility=weights)
    matching = msgspec.structs.replace(card.matching, flow_tracking=flow_tracking)
    wanted = msgspec.structs.replace(card, matching=matching)
    if paths is not None:
        flow_tracking = msgspec.structs.replace(flow_tracking, paths=paths)
        matching = msgspec.structs.replace(card.matching, flow_tracking=flow_tracking)
        wanted = msgspec.structs.replace(card, matching=matching)
    document, sections = read_document(path), [_SECTION]
    edit_section(document, _SECTION, msgspec.structs.asdict(weights), f'"calibrate": {origin}')
    if paths is not None:
        if _require_flow_tracking(card, path).paths is None:
            document = _add_paths(document, paths)
        edit_section(document, _PATHS, msgspec.structs.asdict(paths), f'"calibrate": {origin}')
        sections.append(_PATHS)
    save_card(document, wanted, path.resolve(), (path, sections))


def _add_paths(document: TOMLDocument, paths: PathChoice) -> TOMLDocument:
    """Return a card with a table of weights of paths at its end."""
    rows = [f"{name} = {value}" for name, value in msgspec.structs.asdict(paths).items()]
    return parse("\n".join([document.as_string().rstrip(), "", f"[{_PATHS}]", *rows, ""]))


def _require_flow_tracking(card: Card, path: Path) -> FlowTracking:
    if card.matching.flow_tracking is None:
        raise InputError(
            f"card {path} has no [matching.flow_tracking]. Add that section and export the card "
            "again."
        )
    return card.matching.flow_tracking
