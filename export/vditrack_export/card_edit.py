"""Editing a card's TOML text: values change, comments and layout stay."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tomlkit
from tomlkit.container import Container, OutOfOrderTableProxy
from tomlkit.items import Comment, Item, Null, Table

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_TOML_SIZE, read_file
from vditrack_export.card import Card, load_card

_WIDTH = 100
"""Columns at which a remark is wrapped."""
_CONTINUED = "#   "
"""Beginning of a remark's second line and of those after it."""

CommentWriter = Callable[[str, str], str]
"""Takes a value's old text and its old comment, without ``#``; returns the new comment."""


def edit_section(
    document: tomlkit.TOMLDocument,
    section: str,
    values: Mapping[str, object],
    remark: str,
    comment: CommentWriter | None = None,
) -> None:
    """Change the values of a table in place and put a remark under its header.

    Args:
        document: the card, changed in place.
        section: dotted name of the table, such as ``masks.motion.feature``. Nothing is changed if
            the document has no table of this name with a header of its own.
        values: the values that the table is to have; equal ones keep their text, and keys that the
            table lacks are left out.
        remark: one line that begins with the verb that edits, in quotes, and a colon. It is wrapped
            at 100 columns, and replaces an earlier remark of the same verb.
        comment: returns the comment of a changed value; by default the old comment stays.

    """
    table = _find_table(document, section)
    if table is None:
        return
    for key, value in values.items():
        if key not in table or table[key] == value:
            continue
        old = table.value.item(key)
        new = tomlkit.item(value)
        if comment is not None and isinstance(old, Item):
            new.trivia.comment_ws = "  "
            new.trivia.comment = f"# {comment(old.as_string(), _comment_text(old))}"
        table[key] = new
    _write_remark(table, remark)


def read_document(path: Path) -> tomlkit.TOMLDocument:
    """Return the text of a card as a document that keeps comments and layout."""
    return tomlkit.parse(read_file(path, MAX_TOML_SIZE).decode("utf-8"))


def save_card(
    document: tomlkit.TOMLDocument,
    wanted: Card,
    destination: Path,
    edited: tuple[Path, Sequence[str]],
) -> None:
    """Write an edited card if it loads as the card that is wanted.

    Args:
        document: the edited card.
        wanted: the card that the document has to load as.
        destination: the file, replaced as a whole.
        edited: the file that the document was read from and the sections that were edited, for the
            error.

    Raises:
        InputError: the document loads as another card, because a section that was to be edited is
            an inline table or lacks a key. Nothing is written then.

    """
    source, sections = edited
    with staged_file(destination) as staged:
        staged.write_bytes(tomlkit.dumps(document).encode("utf-8"))
        if load_card(str(staged)) != wanted:
            headers = " and ".join(f"[{section}]" for section in sections)
            raise InputError(
                f"card {source} cannot be edited. Write one value per line under {headers}."
            )


def _find_table(document: tomlkit.TOMLDocument, section: str) -> Table | None:
    found: object = document
    for name in section.split("."):
        if not isinstance(found, (Container, OutOfOrderTableProxy, Table)) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, Table) else None


def _comment_text(item: Item) -> str:
    return item.trivia.comment.lstrip("#").strip()


def _write_remark(table: Table, remark: str) -> None:
    """Put a remark under a table's header, in place of the verb's earlier one."""
    verb, _, _ = remark.partition(":")
    body, old = table.value.body, False
    for place, (_, item) in enumerate(body):
        if not isinstance(item, Comment):
            break
        line = item.trivia.comment
        old = line.startswith(f"# {verb}:") or (old and line.startswith(_CONTINUED))
        if old:
            body[place] = (None, Null())
    text = textwrap.fill(remark, _WIDTH, initial_indent="# ", subsequent_indent=_CONTINUED)
    # tomlkit cannot insert before the first key, so the remark ends the header's line.
    table.trivia.trail = f"\n{text}\n"
