"""Archives of arrays: nothing is unpickled, and no more is allocated than the limit."""

import io
import struct
import zipfile

import numpy as np
import pytest

from vditrack.input_checks.files import MalformedError
from vditrack.input_checks.npz import read_arrays

LIMIT = 1 << 20


def archive(**members: bytes) -> bytes:
    """Return an archive of compressed files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return content.getvalue()


def array(value: object, *, pickled: bool = False) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(value), allow_pickle=pickled)
    return content.getvalue()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_all_versions_are_read(version: tuple[int, int]) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.arange(6).reshape(2, 3), version=version)
    found = read_arrays(archive(a=content.getvalue(), b=array([True])), ("a", "b"), LIMIT)
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
    assert found["b"].dtype == np.bool_


class Harmful:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (AssertionError, ("unpickled",))


HOSTILE = {
    "zip bomb": (lambda: archive(a=bytes(100 << 20)), "more than the limit"),
    "pickle": (lambda: archive(a=array([Harmful()], pickled=True)), "Object arrays"),
    "claimed shape": (
        lambda: archive(
            a=header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }")
        ),
        "claims the shape",
    ),
    "negative shape": (
        lambda: archive(a=header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }")),
        "",
    ),
    "long header": (lambda: archive(a=header("{" + " " * 60_000 + "}")), "not a NumPy archive"),
    "nested header": (
        lambda: archive(a=header("(" * 5000, version=2)),
        "not a NumPy archive",
    ),
    "code as header": (lambda: archive(a=header("__import__('os')")), "not a NumPy archive"),
    "missing array": (lambda: archive(b=array(1)), "an array is missing"),
    "no array": (lambda: archive(a=b"text"), "not a NumPy archive"),
    "no archive": (lambda: b"text", "not a NumPy archive"),
    "empty": (lambda: b"", "not a NumPy archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name: str) -> None:
    make, complaint = HOSTILE[name]
    with pytest.raises(MalformedError, match=complaint or None):
        read_arrays(make(), ("a",), LIMIT)


def test_every_damaged_byte_is_read_or_refused() -> None:
    content = archive(a=array(np.zeros((4, 3, 2), np.float32)))
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        try:
            read_arrays(bytes(damaged), ("a",), LIMIT)
        except MalformedError:
            continue
