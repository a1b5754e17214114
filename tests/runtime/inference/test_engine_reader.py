"""Engine files, read piece by piece."""

import hashlib

import pytest
import tensorrt_rtx

from doubles.cuda import ReaderDouble, read_whole
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import EngineError
from vditrack.inference import engine_reader
from vditrack.inference.engine_reader import EngineFile, make_reader

CONTENT = bytes(range(256)) * 3


class Library:
    """Double: the library's own readers need a driver."""

    IStreamReaderV2 = ReaderDouble


class OldLibrary:
    """TensorRT of JetPack 6, which reads without positions."""

    IStreamReader = ReaderDouble


@pytest.fixture
def engine(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_reader, "_PIECE", 100)
    path = tmp_path / "encoder.engine"
    path.write_bytes(CONTENT)
    record = FileRecord(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    with path.open("rb") as file:
        yield path, file, record


@pytest.mark.parametrize("size", [1, 7, 100, 250, 10_000])
def test_all_pieces_are_read(engine, size):
    assert read_whole(make_reader(Library, EngineFile(*engine)), size) == CONTENT


def test_positions_are_sought(engine):
    reader = make_reader(Library, EngineFile(*engine))
    where = tensorrt_rtx.SeekPosition
    assert reader.seek(-5, where.END) and reader.read(10, 0) == CONTENT[-5:]
    assert reader.seek(150, where.SET) and reader.seek(-51, where.CUR)
    assert reader.read(10, 0) == CONTENT[99:100]
    assert not reader.seek(1, where.END)


def test_an_old_reader_gives_all_that_is_asked_for(engine):
    reader = make_reader(OldLibrary, EngineFile(*engine))
    assert reader.read(250) == CONTENT[:250]
    assert reader.read(10_000) == CONTENT[250:]


def test_another_file_is_refused_before_it_is_read(engine):
    path, file, record = engine
    other = FileRecord(size=record.size, sha256="0" * 64)
    with pytest.raises(EngineError, match=r"encoder\.engine was altered after .* Copy it again"):
        EngineFile(path, file, other)


@pytest.mark.parametrize("position", [0, 150, len(CONTENT) - 1])
def test_a_file_that_changes_while_it_is_read_is_refused(engine, position):
    path, _, _ = engine
    reader = make_reader(Library, EngineFile(*engine))
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"!")
    while reader.read(50, 0):
        pass
    assert [type(failure) for failure in reader.failures] == [EngineError]


def test_a_file_that_grows_is_read_as_far_as_it_was_compared(engine):
    path, _, _ = engine
    reader = make_reader(Library, EngineFile(*engine))
    with path.open("ab") as file:
        file.write(b"more")
    assert read_whole(reader, 50) == CONTENT
