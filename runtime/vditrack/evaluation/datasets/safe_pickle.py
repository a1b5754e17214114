"""Loads pickle files of arrays and plain containers without running code from them.

A pickle is a program that can call any function, but data sets are published as pickles. A file is
read twice: first its instructions are checked, and any that plain data does not need is refused;
then it is loaded by an unpickler that maps the few names of NumPy arrays to recorders in this
module, never to NumPy's own functions.
"""

import math
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError

_ADMITTED = frozenset(
    """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1
    TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET
    LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905
)
_INSTRUCTIONS = {one.code.encode("latin-1"): one for one in pickletools.opcodes}
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""Exceptions of the standard library for a file that is not a pickle, or is cut short."""
_DTYPE = re.compile(r"[biufc]\d{1,3}|[SU][1-9]\d{0,8}|O8?")
_BYTE_ORDERS = ("<", ">", "|", "=")


def load_plain_pickle(path: Path) -> object:
    """Load a pickle of protocol 0 to 5, written by Python 2 or 3 and NumPy 1 or 2.

    It may contain NumPy arrays and scalars (booleans, numbers, and strings of a fixed length), and
    dict, list, tuple, str, bytes, bytearray, int, float, bool and None. A one-dimensional array of
    objects is returned as a list, and a ``str`` of Python 2 as a ``str`` with one character a byte.
    Arrays may be read-only.

    Raises:
        InputError: The file cannot be read, is damaged, or contains anything else. Nothing that it
            names is imported or called.

    """
    try:
        with path.open("rb") as file:
            _check_instructions(path, file)
            file.seek(0)
            loaded = _PlainUnpickler(path, file).load()
        return _PlainCopy(path).plain(loaded)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except _DAMAGE as error:
        reason = _escape(str(error)) or type(error).__name__
        raise InputError(
            f"{path} is damaged, or not a pickle of plain data: {reason}. Download it again."
        ) from error


def _escape(text: str) -> str:
    """Return the start of a text from the file, escaped for display."""
    return ascii(text)[1:-1][:100]


def _check_instructions(path: Path, file: IO[bytes]) -> None:
    """Refuse instructions that plain data does not need, before any is executed."""
    for count, (name, argument) in enumerate(_instructions(file)):
        if name not in _ADMITTED:
            raise InputError(
                f"{path} uses the pickle instruction {name}, which plain data does not "
                "need. It was refused, and nothing was run."
            )
        # Unpicklers allocate memory up to the number that a PUT names, however large it is.
        if name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise ValueError(f"{name} {argument} after {count} instructions")


def _instructions(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield the names of instructions and their arguments, up to STOP.

    Unlike `pickletools.genops`, it accepts strings of protocol 0 that are not ASCII.
    """
    name = ""
    while name != "STOP":
        instruction = _INSTRUCTIONS.get(file.read(1))
        if instruction is None:
            raise ValueError(f"no instruction at byte {file.tell()}")
        name = instruction.name
        if name == "STRING":
            yield name, file.readline()
        else:
            yield name, instruction.arg.reader(file) if instruction.arg else None


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that maps the names of arrays to recorders, and refuses all others."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        # Decoding as latin1 preserves the raw data of arrays that Python 2 wrote.
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str, /) -> "_Name":
        """Return the recorder of a name.

        Raises:
            InputError: The name has no recorder.

        """
        if (module, name) not in _RECORDERS:
            requested = _escape(f"{module}.{name}")
            raise InputError(
                f"{self._path} asks for {requested}, which plain data does not need. It was "
                "refused, and nothing was run."
            )
        return _RECORDERS[module, name]


class _Dtype:
    """A recorder of ``numpy.dtype``: kind, size and byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise ValueError(
                f"dtype {_describe(code)}, which is not a number or string of fixed length"
            )
        self._code, self._order = code, ""

    def __setstate__(self, state: object) -> None:
        # Version, byte order, three entries that only structures have, sizes and flags.
        if self._order or not isinstance(state, tuple) or len(state) != 8:
            raise ValueError(f"dtype {self._code} with an unknown state")
        if state[0] != 3 or state[1] not in _BYTE_ORDERS or any(state[2:5]):
            raise ValueError(f"dtype {self._code} with an unknown state")
        self._order = state[1]

    @property
    def holds_objects(self) -> bool:
        return self._code.startswith("O")

    def array(self, shape: object, data: object, *, fortran: bool) -> NDArray[Any]:
        """Return an array over raw bytes, whose number must match the shape exactly."""
        dtype, sizes = np.dtype(self._order + self._code), _sizes(shape)
        raw = data.encode("latin-1") if isinstance(data, str) else data
        if self.holds_objects or not isinstance(raw, bytes | bytearray):
            raise ValueError(f"{type(data).__name__} in place of the bytes of an array")
        if dtype.itemsize * math.prod(sizes) != len(raw):
            raise ValueError(f"{len(raw)} bytes for an array {sizes} of {dtype}")
        return np.frombuffer(raw, dtype).reshape(sizes, order="F" if fortran else "C")


class _Array:
    """A recorder of an array or scalar, whose content is known at once or when its state is set.

    The content itself is never given to the unpickler, which may set the state of all it can reach.
    """

    __slots__ = ("content",)

    def __init__(self, content: object = None) -> None:
        self.content = content

    @property
    def known(self) -> object:
        """The content; raises ValueError if there is none."""
        if self.content is None:
            raise ValueError("an array without a state")
        return self.content

    def __setstate__(self, state: object) -> None:
        if self.content is not None or not isinstance(state, tuple) or len(state) != 5:
            raise ValueError(f"an array with the state of a {type(state).__name__}")
        version, shape, dtype, fortran, data = state
        if version != 1 or not isinstance(dtype, _Dtype):
            raise ValueError("an array of an unknown version, or with no dtype")
        if not dtype.holds_objects:
            self.content = dtype.array(shape, data, fortran=bool(fortran))
        elif isinstance(data, list) and _sizes(shape) == (len(data),):
            self.content = data
        else:
            raise ValueError("an array of objects that is not a list")


class _Name:
    """A recorder of a function or class of NumPy, which can be called but has no state."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object] | None = None) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        if self._call is None:
            raise TypeError("numpy.ndarray is called")
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise TypeError("the state of a function is set")


_NDARRAY = _Name()


def _reconstruct(subtype: object, shape: object, dtype: object) -> _Array:
    if subtype is not _NDARRAY:
        raise ValueError("an array of another type than numpy.ndarray")
    return _Array()


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise ValueError(f"an array of order {_describe(order)}, or with no dtype")
    return _Array(dtype.array(shape, data, fortran=order == "F"))


def _scalar(dtype: object, data: object) -> _Array:
    if not isinstance(dtype, _Dtype):
        raise ValueError("a scalar with no dtype")
    return _Array(dtype.array((), data, fortran=False)[()])


def _encoded(text: object, encoding: object) -> bytes:
    """Return bytes as Python 3 writes them in protocols without bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes written as {_describe(encoding)}")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


def _byte_array(data: object = b"") -> bytearray:
    if not isinstance(data, bytes):
        raise ValueError(f"a bytearray of a {type(data).__name__}")
    return bytearray(data)


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array whose shape is not a tuple of whole numbers")
    return shape


def _describe(value: object) -> str:
    """Return a text as it is, or the type of another value, whose text might have no end."""
    return repr(value) if isinstance(value, str) else type(value).__name__


_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("__builtin__", "builtins")
"""Names of modules in older and newer versions of NumPy and Python."""
_RECORDERS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(_Dtype),
    **{(f"{core}.multiarray", "_reconstruct"): _Name(_reconstruct) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _Name(_scalar) for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Name(_from_buffer) for core in _CORES},
    ("_codecs", "encode"): _Name(_encoded),
    **{(module, "bytes"): _Name(_empty_bytes) for module in _BUILTINS},
    **{(module, "bytearray"): _Name(_byte_array) for module in _BUILTINS},
}

_ATOMS = (str, bytes, bytearray, int, float, bool, type(None))
_IN_PROGRESS = object()


class _PlainCopy:
    """A copy of loaded containers, with arrays in the place of their recorders."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Each container is copied once, since nested references multiply.
        self._done: dict[int, object] = {}

    def plain(self, value: object) -> object:
        """Return a deep copy of a value.

        Raises:
            InputError: It contains something that is not plain data.
            ValueError: It contains itself, or an incomplete array.

        """
        if isinstance(value, _Array):
            value = value.known
        if type(value) in _ATOMS or isinstance(value, np.ndarray | np.generic):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = _IN_PROGRESS
            self._done[id(value)] = self._copy(value)
        if self._done[id(value)] is _IN_PROGRESS:
            raise ValueError("a container that contains itself")
        return self._done[id(value)]

    def _copy(self, value: object) -> object:
        if type(value) is list:
            return [self.plain(item) for item in value]
        if type(value) is tuple:
            return tuple(self.plain(item) for item in value)
        if type(value) is dict and all(type(key) in _ATOMS for key in value):
            return {key: self.plain(item) for key, item in value.items()}
        raise InputError(
            f"{self._path} contains an object that is neither an array nor plain data."
        )
