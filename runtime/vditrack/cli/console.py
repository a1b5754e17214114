"""Printing of text that may come from files: names and notes are never interpreted."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

_REPLACED = dict.fromkeys(
    [
        *(code for code in range(0x20) if chr(code) not in "\n\t"),
        *range(0x7F, 0xA0),
        # Marks that change the direction of the text after them.
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        # Bytes of a file name that are no UTF-8.
        *range(0xD800, 0xE000),
    ],
    "\N{REPLACEMENT CHARACTER}",
)


def clean_text(text: str) -> str:
    """Return a text in which characters that control a terminal are replaced."""
    return text.translate(_REPLACED)


class PlainConsole(Console):
    """A console without markup and emoji codes, on which text cannot control the terminal."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        """Write to stdout or stderr, or nothing if quiet."""
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False)

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:  # noqa: ANN401
        """Yield segments with clean text; those that rich makes to move the cursor stay."""
        for text, style, control in super().render(*arguments, **options):
            yield Segment(text if control else clean_text(text), style, control)
