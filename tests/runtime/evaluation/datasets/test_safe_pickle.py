"""Pickles of data sets: what is read, and what is refused without running it."""

import builtins
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vditrack import InputError
from vditrack.evaluation.datasets.safe_pickle import load_plain_pickle

PROTOCOLS = range(6)
ARRAYS = {
    "empty": np.zeros((0, 3), np.float32),
    "matrix": np.arange(6).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "strided": np.arange(10, dtype=np.int16)[::2],
    "big-endian": np.arange(5, dtype=">f4") / 3,
    "big-endian integers": np.array([1, -2, 300], ">i2"),
    "booleans": np.array([[True, False, True]]),
    "complex": np.array([1 + 2j, 3], np.complex64),
    "half": np.array([0.5, 65504], np.float16),
    "unicode": np.array(["video", "ü"]),
    "strings": np.array([b"\xff\xd8\x00x", b"y"]),
    "no dimension": np.array(3, np.uint8),
    "scalar": np.float32(1.5),
    "boolean scalar": np.bool_(True),
    "text scalar": np.str_("ab"),
}
PLAIN = {
    "text": "ü",
    "bytes": b"\x00\xff",
    "none": [None, b"", "", {}, ()],
    "numbers": (1, -(2**70), 1.5, True),
    3: bytearray(b"ab"),
    b"key": bytearray(),
}


def saved(folder, content, protocol=4):
    path = folder / "data.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


class Trap:
    """Calls a function when it is unpickled by the standard library."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


class OfThisModule:
    def __init__(self):
        self.state = 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(tmp_path, name, protocol):
    array = ARRAYS[name]
    read = load_plain_pickle(saved(tmp_path, {"a": [array, (array, 1)]}, protocol))["a"]
    for one in (read[0], read[1][0]):
        assert type(one) is type(array)
        assert one.dtype == array.dtype
        assert one.shape == array.shape
        np.testing.assert_array_equal(one, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_come_back(tmp_path, protocol):
    read = load_plain_pickle(saved(tmp_path, PLAIN, protocol))
    assert read == PLAIN
    assert [type(value) for value in read.values()] == [type(value) for value in PLAIN.values()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_of_objects_comes_as_a_list(tmp_path, protocol):
    array = np.array([b"jpeg", {"inside": np.arange(3)}], object)
    read = load_plain_pickle(saved(tmp_path, array, protocol))
    assert type(read) is list
    assert read[0] == b"jpeg"
    np.testing.assert_array_equal(read[1]["inside"], np.arange(3))


def test_what_is_shared_is_read_once(tmp_path):
    """Nested references to the same list multiply, here to 2**60 items."""
    nested = [np.zeros(1)]
    for _ in range(60):
        nested = [nested, nested]
    read = load_plain_pickle(saved(tmp_path, nested))
    assert read[0] is read[1]


def test_what_is_refused_is_not_printed_at_length(tmp_path):
    """A shape of 2**60 items would be."""
    nested = b")" + 60 * b"q\x00h\x00\x86"
    with pytest.raises(InputError, match="whose shape is not a tuple"):
        load_plain_pickle(saved(tmp_path, rebuilt(b"(K\x01" + nested + FLOATS + b"\x89C\x00t")))


def python_2(order=b"<", raw=b"\x00\x00\x80?\x00\x00\x00\xc0", name=b"points"):
    """What Python 2 and NumPy 1 write of {name: float32 [1.0, -2.0]}, its text being bytes."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01K\x02\x85" + dtype + b"\x89" + text(raw) + b"tb"
    return b"\x80\x02}" + text(name) + array + b"s."


def test_a_pickle_of_python_2(tmp_path):
    read = load_plain_pickle(saved(tmp_path, python_2()))
    np.testing.assert_array_equal(read["points"], np.float32([1, -2]))
    assert read["points"].dtype == np.float32
    expected = pickle.loads(python_2(), encoding="latin1")
    np.testing.assert_array_equal(read["points"], expected["points"])
    swapped = python_2(b">", b"?\x80\x00\x00\xc0\x00\x00\x00")
    read = load_plain_pickle(saved(tmp_path, swapped))
    np.testing.assert_array_equal(read["points"], np.float32([1, -2]))


def test_a_pickle_of_python_2_in_protocol_0(tmp_path):
    """Its default; strings are quoted there, and arguments are lines."""
    dtype = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    array += b"(I1\n(I2\ntp5\n" + dtype + rb"I00" + b"\n" + rb"S'\x00\x00\x80?\x00\x00\x00\xc0'"
    whole = b"(dp0\nS'points'\np1\n" + array + b"\ntbs."
    read = load_plain_pickle(saved(tmp_path, whole))
    np.testing.assert_array_equal(read["points"], np.float32([1, -2]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda marker: Trap(os.system, f"touch {marker}"), r"(posix|nt)\.system"),
        (lambda marker: Trap(eval, f"open({marker!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda marker: Trap(Path.touch, Path(marker)), r"pathlib|getattr"),
        (lambda marker: Trap(np.save, marker, 1), r"numpy\S*\.save"),
        (lambda marker: Trap(np.load, marker), r"numpy\S*\.load"),
        (lambda marker: Trap(np.fromfile, marker), r"numpy\S*\.fromfile"),
        (
            lambda marker: Trap(np.testing.runstring, f"open({marker!r}, 'w')", {}),
            r"numpy\S*\.runstring",
        ),
        (lambda marker: OfThisModule(), r"reconstructor|OfThisModule|NEWOBJ"),
        (lambda marker: {1, 2}, r"set|SET"),
        (lambda marker: np.ma.array([1]), r"numpy\.ma|NEWOBJ"),
        (lambda marker: np.random.default_rng(0), r"numpy\.random"),
        (lambda marker: builtins.slice, r"slice"),
    ],
)
def test_anything_else_is_refused_and_not_run(tmp_path, protocol, make, asked):
    marker = tmp_path / "marker"
    path = saved(tmp_path, {"video": [make(str(marker))]}, protocol)
    with pytest.raises(InputError, match=rf"data\.pkl (asks for|uses).*({asked})") as raised:
        load_plain_pickle(path)
    assert "\n" not in str(raised.value)
    assert not marker.exists()


def test_the_traps_would_work(tmp_path):
    """Otherwise the test above would prove nothing."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Trap(eval, f"open({str(marker)!r}, 'w')")))
    assert marker.exists()


def rebuilt(state, subtype=b"cnumpy\nndarray\n"):
    """An array whose state is set to anything."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n" + subtype + b"K\x00\x85C\x01b\x87R"
    return made + state + b"b."


def dtype(code, state=b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"):
    code = code.encode()
    return b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code + b"\x89\x88\x87R" + state


FLOATS = dtype("f4")
MINUS = b"J\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "content",
    [
        rebuilt(b"(K\x01K\x03\x85" + FLOATS + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01K\x01\x85" + FLOATS + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01" + MINUS * 2 + b"\x86" + FLOATS + b"\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"(K\x01G?\xf0" + bytes(6) + b"\x85" + FLOATS + b"\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"(K\x01\x88\x85" + FLOATS + b"\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"(K\x01]" + FLOATS + b"\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"(K\x01K\x01\x85" + FLOATS + b"\x89K\x04t"),
        rebuilt(b"(K\x01K\x01\x85X\x02\x00\x00\x00f4\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"(K\x01K\x01\x85" + dtype("O8") + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01K\x02\x85" + dtype("O8") + b"\x89]t"),
        rebuilt(b"(K\x01K\x01\x85" + dtype("V8") + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01K\x01\x85" + dtype("f4,f4") + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01K\x01\x85" + dtype("M8") + b"\x89C\x08" + bytes(8) + b"t"),
        rebuilt(b"(K\x01K\x00\x85" + dtype("U0") + b"\x89C\x00t"),
        rebuilt(b"(K\x01K\x00\x85" + dtype("f3") + b"\x89C\x00t"),
        rebuilt(b"(K\x01K\x01\x85" + dtype("f4", b"}b") + b"\x89C\x04" + bytes(4) + b"t"),
        rebuilt(b"K\x05", subtype=b"cnumpy\ndtype\n"),
        rebuilt(b"}X\x01\x00\x00\x00aK\x01s"),
        # Recorders whose own state is set, called, or left among the data.
        b"cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",
        b"cnumpy.core.multiarray\nscalar\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",
        b"cnumpy\ndtype\n}b.",
        b"cnumpy\nndarray\nK\x01\x85R.",
        b"cnumpy\nndarray\n.",
        FLOATS + b".",
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R.",
        b"cnumpy.core.multiarray\nscalar\n" + FLOATS + b"C\x04" + bytes(4) + b"\x86R}b.",
        b"}cnumpy\nndarray\nK\x01s.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        # Containers that hold themselves.
        b"]q\x00h\x00a.",
        b"}q\x00K\x01h\x00s.",
        # Claims of more than there is.
        b"\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x8e" + struct.pack("<Q", 2**36) + b"x.",
        b"\x96" + struct.pack("<Q", 2**36) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
        b"X\xff\xff\xff\x7fab.",
        b"Nr\xff\xff\xff\x7f.",
        b"Np2000000000\n.",
        # Too deep to be walked through.
        b"]" * 100_000 + b"a" * 99_999 + b".",
        # Broken in other ways.
        b"",
        b".",
        b"\x80\x63N.",
        b"0.",
        b"h\x05.",
        b"]]s.",
        b"}]K\x01s.",
        b"Fx\n.",
        b"cos.",
        b"not a pickle",
        b"PK\x03\x04",
        bytes(range(256)),
    ],
)
def test_nonsense_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"data\.pkl"):
        load_plain_pickle(saved(tmp_path, content))


def test_a_number_of_the_memo_takes_no_memory(tmp_path):
    """The standard library makes room for as many as an instruction claims."""
    with pytest.raises(InputError, match="LONG_BINPUT 2147483647"):
        load_plain_pickle(saved(tmp_path, b"Nr\xff\xff\xff\x7f."))


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"Pos.system\n.", "PERSID"), (b"\x82\x01.", "EXT1"), (b"\x97.", "NEXT_BUFFER")],
)
def test_other_ways_to_reach_outside_are_refused(tmp_path, content, name):
    with pytest.raises(InputError, match=f"pickle instruction {name}"):
        load_plain_pickle(saved(tmp_path, content))


def test_arrays_made_by_hand_are_read(tmp_path):
    """So that what is wrong with those above is what is meant to be wrong."""
    whole = rebuilt(b"(K\x01K\x02\x85" + FLOATS + b"\x89C\x08" + bytes(8) + b"t")
    np.testing.assert_array_equal(load_plain_pickle(saved(tmp_path, whole)), np.zeros(2))
    np.testing.assert_array_equal(load_plain_pickle(saved(tmp_path, buffered(b"")))[0], np.zeros(2))


def test_the_data_of_an_array_cannot_change_under_it(tmp_path):
    """A bytearray that is in an array is asked to take one byte more."""
    with pytest.raises(InputError, match=r"data\.pkl is damaged.*exports"):
        load_plain_pickle(saved(tmp_path, buffered(b"h\x01K\x01a")))


def buffered(more):
    """A list of an array over a bytearray, number 1 of the memo, and of what more is given."""
    data = b"\x96" + struct.pack("<Q", 8) + bytes(8) + b"q\x01"
    array = b"cnumpy.core.numeric\n_frombuffer\n(" + data + FLOATS + b"K\x02\x85"
    return b"\x80\x05](" + array + b"X\x01\x00\x00\x00CtR" + more + b"e."


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_beginning_of_a_file_is_refused(tmp_path, protocol):
    clip = {"v": [np.zeros((2, 3), np.uint8), np.array([b"a"], object), np.float32(1), b"\xff"]}
    whole = pickle.dumps(clip, protocol)
    for end in range(len(whole)):
        with pytest.raises(InputError, match=r"data\.pkl is damaged"):
            load_plain_pickle(saved(tmp_path, whole[:end]))


@given(data=st.data())
def test_a_damaged_file_never_raises_anything_else(tmp_path_factory, data):
    protocol = data.draw(st.sampled_from(PROTOCOLS))
    whole = bytearray(pickle.dumps([np.zeros((2, 3)), PLAIN, np.float32(2)], protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = saved(tmp_path_factory.getbasetemp(), bytes(whole))
    try:
        load_plain_pickle(path)
    except InputError as error:
        assert str(path) in str(error)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pkl cannot be read"):
        load_plain_pickle(tmp_path / "absent.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        load_plain_pickle(tmp_path)
