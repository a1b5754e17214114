"""Text from files and libraries cannot control a terminal, wherever it is printed."""

import json
import logging
import unicodedata

from vditrack.input_checks.text import clean_line, clean_text, escape_json

BIDI = "\u061c\u200e\u200f\u202a\u202e\u2066\u2069"


def test_every_control_character_is_replaced():
    """Control, format marks of direction, separators and lone surrogates, by Unicode's classes."""
    for code in range(0x110000):
        letter = chr(code)
        unsafe = unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} and letter not in "\n\t"
        if unsafe or letter in BIDI:
            assert clean_text(letter) == "\N{REPLACEMENT CHARACTER}", hex(code)


def test_invisible_format_characters_are_replaced():
    """All of Unicode's class Cf but joiners, and marks that are drawn with their letters."""
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    kept = {0x200C, 0x200D, *drawn, *range(0x13430, 0x13440)}
    for code in range(0x110000):
        if unicodedata.category(chr(code)) == "Cf" and code not in kept:
            assert clean_text(chr(code)) == "\N{REPLACEMENT CHARACTER}", hex(code)


def test_letters_of_all_languages_and_joined_emoji_stay():
    text = "Größe 你好 שלום مرحبا 👩\u200d🚀 📹"
    assert clean_text(text) == text


def test_a_line_is_one_line():
    assert clean_line("a\n b\r\nc\u2028d\x85e\x1b[2J") == "a b c d e\N{REPLACEMENT CHARACTER}[2J"


def test_json_stays_the_same_json():
    value = {"name": f"a\x9b2J{BIDI}\u2028\U000e0041", "other": "Größe 📹"}
    escaped = escape_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(escaped) == value
    assert clean_text(escaped) == escaped
    assert "Größe 📹" in escaped


def test_messages_of_the_package_are_clean_whatever_handler_prints_them(caplog):
    logging.getLogger("vditrack").warning("%s fails", "a\x1b[31m\nvditrack: b")
    assert [record.getMessage() for record in caplog.records] == [
        "a\N{REPLACEMENT CHARACTER}[31m vditrack: b fails"
    ]
