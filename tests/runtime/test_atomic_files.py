import errno
import os
from pathlib import Path

import pytest

from vditrack.atomic_files import (
    check_disk_space,
    check_file_destination,
    check_folder_destination,
    named_option,
    results_folder,
    staged_file,
    staged_folder,
)
from vditrack.errors import InputError

STAGED = [lambda path: staged_folder(path, ()), staged_file]
ORIGINAL = Path.mkdir


def write_folder(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def read_folder(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("staged", STAGED)
def test_an_interrupt_as_the_scratch_folder_appears_leaves_nothing(staged, tmp_path, monkeypatch):
    def made_and_interrupted(path, mode=0o777, parents=False, exist_ok=False):
        ORIGINAL(path, mode, parents, exist_ok)
        if path.name.startswith(".vditrack-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", made_and_interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "new" / "result"):
        pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("staged", STAGED)
def test_a_failing_block_leaves_what_was_there(staged, tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path / "new" / "result"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("stopped_at", range(1, 5))
def test_a_failure_between_renames_brings_the_old_files_back(
    error, stopped_at, tmp_path, monkeypatch
):
    destination = write_folder(tmp_path / "result", a="old a", b="old b")
    original, renames = Path.rename, []

    def rename(path, target):
        renames.append(path)
        if len(renames) == stopped_at:
            raise error
        return original(path, target)

    expected = KeyboardInterrupt if error is KeyboardInterrupt else InputError
    with (
        pytest.raises(expected) as caught,
        staged_folder(destination, {"a.txt", "b.txt"}) as scratch,
    ):
        write_folder(scratch, a="new a", b="new b")
        monkeypatch.setattr(Path, "rename", rename)
    kept = [path for path in destination.iterdir() if path.is_dir()]
    if error is OSError:
        assert str(kept[0]) in str(caught.value)
        assert read_folder(kept.pop()) == {"a": "new a", "b": "new b"}
    assert kept == []
    assert (destination / "a.txt").read_text() == "old a"
    assert (destination / "b.txt").read_text() == "old b"


@pytest.mark.parametrize("way", ["itself", "current", "link", "dangling link"])
def test_a_folder_of_any_kind_gets_the_result_and_keeps_its_own_identity(
    way, tmp_path, monkeypatch
):
    folder, link = tmp_path / "folder", tmp_path / "link"
    if way != "dangling link":
        write_folder(folder, a="old").chmod(0o700)
        before = folder.stat().st_ino
    link.symlink_to(folder)
    if way == "current":
        monkeypatch.chdir(folder)
    path = {"itself": folder, "current": Path()}.get(way, link)
    with staged_folder(path, {"a.txt", "b.txt"}) as scratch:
        write_folder(scratch, b="new")
    assert read_folder(folder) == {"b": "new"}
    assert link.is_symlink()
    if way != "dangling link":
        assert (folder.stat().st_ino, folder.stat().st_mode & 0o777) == (before, 0o700)


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with staged_file(tmp_path / "link") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "target").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_names_of_the_system_do_not_count_as_other_files(tmp_path):
    for name in (".Trash-0", "lost+found"):
        (tmp_path / name).mkdir()
    with staged_folder(tmp_path, {"a.txt"}) as scratch:
        write_folder(scratch, a="new")
    assert {path.name for path in tmp_path.iterdir()} == {".Trash-0", "lost+found", "a.txt"}
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        staged_folder(tmp_path, {"a.txt"}).__enter__()


def test_a_file_that_cannot_be_renamed_is_written_in_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def refuse(path, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", refuse)
    with staged_file(tmp_path / "file") as scratch:
        scratch.write_text("new")
    assert read_folder(tmp_path) == {"file": "new"}


def write_results(destination: Path, names: str, inputs=()) -> None:
    with results_folder(destination, {"a.txt", "b.txt"}, "a.txt", inputs) as folder:
        for name in names:
            with folder.file(f"{name}.txt") as path:
                path.write_text("new")


def test_results_stay_beside_other_files_and_replace_those_of_an_earlier_run(tmp_path):
    write_folder(tmp_path, own="own")
    write_results(tmp_path, "ab")
    assert read_folder(tmp_path) == {"own": "own", "a": "new", "b": "new"}
    write_folder(tmp_path, a="old", b="old")
    write_results(tmp_path, "a")
    assert read_folder(tmp_path) == {"own": "own", "a": "new"}


def test_scratch_of_a_killed_run_is_removed_and_that_of_a_live_one_stays(tmp_path):
    write_folder(tmp_path / ".vditrack-dead", a="half")
    with staged_file(tmp_path / "c.txt") as live:
        write_results(tmp_path, "ab")
        live.write_text("new")
    assert read_folder(tmp_path) == {"a": "new", "b": "new", "c": "new"}


@pytest.mark.parametrize("place", ["result", "."])
def test_scratch_of_a_killed_run_is_removed_beside_and_in_a_staged_folder(place, tmp_path):
    write_folder(write_folder(tmp_path / place) / ".vditrack-dead", a="half")
    with staged_folder(tmp_path / "other", ()) as live, staged_folder(tmp_path / "result", ()) as s:
        assert live.exists()
        write_folder(s, a="new")
    assert read_folder(tmp_path / "result") == {"a": "new"}
    assert not (tmp_path / place / ".vditrack-dead").exists()


def test_errors_name_the_option_of_the_destination(tmp_path):
    write_folder(tmp_path, a="own")
    for path in (tmp_path, tmp_path / "a.txt", tmp_path / "a.txt/below"):
        message = r"Choose another (folder with )?--copy\.$"
        with pytest.raises(InputError, match=message), named_option("--copy"):
            check_folder_destination(path, ())
        with (
            pytest.raises(InputError, match=message),
            named_option("--copy"),
            staged_folder(path, ()),
        ):
            pytest.fail("the block ran")


def test_a_result_stays_if_a_later_one_fails_and_old_ones_until_there_is_a_new_one(tmp_path):
    folder = write_folder(tmp_path / "folder", a="old", b="old")
    with (
        pytest.raises(RuntimeError),
        results_folder(folder, {"a.txt", "b.txt"}, "a.txt") as results,
        results.file("a.txt"),
    ):
        raise RuntimeError
    assert read_folder(folder) == {"a": "old", "b": "old"}
    with (
        pytest.raises(RuntimeError),
        results_folder(folder, {"a.txt", "b.txt"}, "a.txt") as results,
    ):
        with results.file("a.txt") as path:
            path.write_text("new")
        with results.file("b.txt") as path:
            path.write_text("half")
            raise RuntimeError
    assert read_folder(folder) == {"a": "new"}


def test_neither_inputs_nor_files_of_the_user_are_replaced(tmp_path):
    write_folder(tmp_path, a="old", b="old")
    with pytest.raises(InputError, match=r"b\.txt is an input"):
        write_results(tmp_path, "a", [tmp_path / "b.txt"])
    (tmp_path / "a.txt").unlink()
    write_folder(tmp_path, own="own")
    with pytest.raises(InputError, match=r"holds b\.txt, which would be replaced, and no a\.txt"):
        write_results(tmp_path, "a")
    assert read_folder(tmp_path) == {"own": "own", "b": "old"}


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("file", "is a file"),
        ("file/below/result", r"cannot write in .*: .*file is a file"),
        ("circle", "cannot write in"),
        ("read-only", "cannot write in .*: Read-only file system"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    destination, message, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "read-only").mkdir()
    before = sorted(tmp_path.iterdir())

    def mkdir(path, mode=0o777, parents=False, exist_ok=False):
        if path.parent.name == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        ORIGINAL(path, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    for folder in (
        results_folder(tmp_path / destination, {"a"}, "a"),
        staged_folder(tmp_path / destination, {"a"}),
    ):
        with pytest.raises(InputError, match=message), folder:
            pytest.fail("the work began")
    if destination != "file":
        with pytest.raises(InputError, match="cannot write in"):
            check_file_destination(tmp_path / destination / "report.html")
    assert sorted(tmp_path.iterdir()) == before


def test_a_device_is_not_replaced():
    with pytest.raises(InputError, match="/dev/null is not a regular file"):
        check_file_destination(Path("/dev/null"))
    with pytest.raises(InputError, match="/dev/null is not a regular file"):
        staged_file(Path("/dev/null")).__enter__()


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    refusal = pytest.raises(InputError, match=r"a\.txt cannot be written: No space left")
    with refusal, staged_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    check_disk_space(tmp_path / "new" / "bundle", 1, "the bundle", "Make room.")
    with pytest.raises(InputError, match=r"the bundle takes about 1e\+09 GB, and .* Make"):
        check_disk_space(tmp_path / "new" / "bundle", 1e18, "the bundle", "Make room.")
