"""Files from outside: other kinds, sizes and nestings than expected are refused at once."""

import json
import os
import socket
import sys

import msgspec
import pytest

from vditrack.input_checks.files import (
    MAX_DEPTH,
    MalformedError,
    RefusedFileError,
    decode_json,
    decode_python_json,
    decode_toml,
    read_file,
)


class Pair(msgspec.Struct):
    a: int
    b: str = ""


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(RefusedFileError, match="larger than the limit of 4 bytes"):
        read_file(path, 4)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RefusedFileError, match="it is a FIFO, not a regular file"):
        read_file(tmp_path / "fifo", 10)


def test_devices_sockets_and_folders_are_refused(tmp_path, monkeypatch):
    # The path of a socket is limited to about 100 bytes.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for path, kind in (("/dev/zero", "device"), ("socket", "socket"), (".", "folder")):
        with pytest.raises(RefusedFileError, match=f"it is a {kind}"):
            read_file(tmp_path / path, 10)


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 10) == b"content"
    with pytest.raises(RefusedFileError, match="it is a symbolic link"):
        read_file(tmp_path / "link", 10, follow_links=False)


def test_a_link_to_an_endless_device_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(RefusedFileError, match="it is a device"):
        read_file(tmp_path / "link", 10)


def test_json_is_decoded_to_its_type():
    assert decode_json(b'{"a": 1, "b": "[[{\\"[["}', Pair) == Pair(1, '[[{"[[')


def test_json_of_python_has_numbers_that_are_not_finite():
    content = '{"a": [NaN, Infinity, -Infinity, 1e400], "b": "ü"}'
    found = decode_python_json(content.encode(), dict)
    assert json.dumps(found, ensure_ascii=False) == content.replace("1e400", "Infinity")


@pytest.mark.parametrize("decode", [decode_json, decode_python_json])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json_is_refused_whatever_the_interpreters_limit(opening, decode):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(MalformedError, match=f"nested more than {MAX_DEPTH} levels"):
            decode(opening.encode() * 1_000_000, dict)
    finally:
        sys.setrecursionlimit(limit)


def test_json_of_the_largest_depth_is_read():
    nested = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert decode_json(json.dumps(nested).encode(), list) == nested


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": "text"}',
        b'{"a": 1, "b": "\xff"}',
        b'{"a": 1, "b": "\\ud800"}',
        b"\xff\xfe",
        b"[1]",
        b'"',
        b'{"a": ' + b"1" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("decode", [decode_json, decode_python_json])
def test_malformed_json_is_one_kind_of_error(content, decode):
    with pytest.raises(MalformedError):
        decode(content, Pair)


def test_toml_is_decoded_to_its_type():
    assert decode_toml(b'a = 1\nb = "x.y"\n', Pair) == Pair(1, "x.y")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a = " + b"[" * 100_000, "nested more than"),
        (b".".join([b"a"] * 900) + b" = 1", "nested more than"),
        (b"[" + b".".join([b"a"] * 100_000) + b"]", "line 1 has more than 1000 dots"),
        (b"#" * (2 << 20), "larger than the limit"),
        (b"a = \xff", "utf-8"),
        (b"a = ", "nvalid value"),
        (b'a = "text"', "Expected `int`"),
    ],
)
def test_hostile_toml_is_refused(content, complaint):
    with pytest.raises(MalformedError, match=complaint):
        decode_toml(content, Pair)
