from pathlib import Path

import pytest

from vditrack.atomic_files import staged_file, staged_folder

STAGED = [lambda path: staged_folder(path, ()), staged_file]
ORIGINAL = Path.mkdir


@pytest.mark.parametrize("staged", STAGED)
def test_an_interrupt_as_the_scratch_folder_appears_leaves_nothing(staged, tmp_path, monkeypatch):
    def made_and_interrupted(path, mode=0o777, parents=False, exist_ok=False):
        ORIGINAL(path, mode, parents, exist_ok)
        if path.name.startswith(".result."):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", made_and_interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "result"):
        pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("staged", STAGED)
def test_a_failing_block_leaves_what_was_there(staged, tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path / "result"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_between_both_renames_brings_the_old_folder_back(tmp_path, monkeypatch):
    destination = tmp_path / "result"
    destination.mkdir()
    (destination / "a.txt").write_text("old")
    original = Path.rename

    def interrupted(path, target):
        if path.name.startswith(".result."):
            raise KeyboardInterrupt
        return original(path, target)

    with pytest.raises(KeyboardInterrupt), staged_folder(destination, {"a.txt"}):
        monkeypatch.setattr(Path, "rename", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert (destination / "a.txt").read_text() == "old"
