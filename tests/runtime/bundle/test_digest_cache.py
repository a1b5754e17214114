"""Digests of large files are computed again whenever the file may have changed."""

import os
from pathlib import Path

import pytest

from doubles.manifest import two_cells, write_graphs
from vditrack.bundle import digest_cache, file_checks
from vditrack.bundle.folder import FEATURES, load_bundle, seal_bundle
from vditrack.errors import BundleError

WEIGHTS = f"{FEATURES}.data"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that are hashed."""
    sizes: list[int] = []
    compute = file_checks._hash

    def record(file: object) -> str:
        sizes.append(os.fstat(file.fileno()).st_size)
        return compute(file)

    monkeypatch.setattr(file_checks, "_hash", record)
    return sizes


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose weights count as large; the cache is empty, and all files are old enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "SMALLEST", 1000)
    monkeypatch.setattr(digest_cache, "_SETTLED", -1e9)
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_graphs(folder)
    (folder / WEIGHTS).write_bytes(bytes(2000))
    seal_bundle(folder, two_cells())
    return folder


def test_an_unchanged_large_file_is_hashed_once(root: Path, hashed: list[int]) -> None:
    load_bundle(root)
    assert 2000 not in hashed
    assert len(hashed) == 2
    load_bundle(root, verify_files=True)
    assert 2000 in hashed


def rewrite(path: Path) -> None:
    path.write_bytes(b"x" * 2000)


def rewrite_and_restore_the_time(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"x" * 2000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"x" * 2000)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_and_restore_the_time, replace])
def test_a_changed_file_of_the_same_size_is_refused(root: Path, change: object) -> None:
    load_bundle(root)
    change(root / WEIGHTS)
    with pytest.raises(BundleError, match="altered or cut short"):
        load_bundle(root)


def test_a_file_that_was_just_written_is_not_stored(
    root: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within the resolution of the file system's clock would not be seen."""
    monkeypatch.setattr(digest_cache, "_SETTLED", 1e9)
    (root.parent / "cache" / "vditrack" / "digests.json").unlink()
    load_bundle(root)
    load_bundle(root)
    assert hashed.count(2000) == 2


@pytest.mark.parametrize("content", [b"", b"{", b'{"digests": 1}', b"[" * 10_000])
def test_a_damaged_cache_counts_as_empty(root: Path, hashed: list[int], content: bytes) -> None:
    (root.parent / "cache" / "vditrack" / "digests.json").write_bytes(content)
    load_bundle(root)
    assert 2000 in hashed


def test_a_cache_that_others_could_have_written_is_not_read(
    root: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    load_bundle(root)
    assert 2000 in hashed


def test_without_a_place_for_the_cache_files_are_hashed(
    root: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "file"))
    load_bundle(root)
    assert 2000 in hashed
