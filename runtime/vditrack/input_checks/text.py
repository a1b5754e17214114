"""Text from files and libraries, made safe to print: it cannot control a terminal."""

import json
import logging

_SURROGATES = range(0xD800, 0xE000)
_UNSAFE = (
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    # Separators of lines and paragraphs.
    0x2028,
    0x2029,
    # Marks that change the direction of text.
    0x061C,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    # Invisible letters that can hide text in a name, or make two names look the same. The joiners
    # U+200C and U+200D stay: scripts and emoji need them.
    0xAD,
    0x180E,
    0x200B,
    *range(0x2060, 0x2066),
    *range(0x206A, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE0080),
    # Bytes of a file name that are no UTF-8.
    *_SURROGATES,
)
_REPLACED = dict.fromkeys(_UNSAFE, "\N{REPLACEMENT CHARACTER}")
# Lone surrogates are left out: the JSON of this program is valid UTF-8.
_ESCAPED = {
    code: json.dumps(chr(code))[1:-1]
    for code in _UNSAFE
    if code >= 0x7F and code not in _SURROGATES
}


def clean_text(text: str) -> str:
    """Return a text in which characters that control a terminal are replaced."""
    return text.translate(_REPLACED)


def clean_line(text: str) -> str:
    """Return a clean text on one line, so that it cannot look like several messages."""
    return clean_text(" ".join(text.split()))


def escape_surrogates(text: str) -> str:
    """Return a text that UTF-8 can encode: bytes of a file name that are no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def escape_json(text: str) -> str:
    """Return the same JSON, in which characters that control a terminal are escaped."""
    # JSON itself escapes those below 0x20.
    return text.translate(_ESCAPED)


class CleanRecords(logging.Filter):
    """Makes the messages of a logger clean lines, whatever handler prints them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message of a record by a clean line, and let the record pass."""
        record.msg, record.args = clean_line(record.getMessage()), None
        return True
