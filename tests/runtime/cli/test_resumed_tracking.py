"""Long recordings in ``track``: interrupted, refused, and continued."""

import shutil
from importlib import metadata

import numpy as np
import pytest

from doubles.video_files import moving_texture, write_video_file
from vditrack.atomic_files.locks import locked_folder
from vditrack.bundle.redetection import GapFilling
from vditrack.cli import stored_tracking, track_run
from vditrack.io import frame_source
from vditrack.io.track_store import TrackStore

POINTS = ("--at", "0,40,30", "--at", "13,80,50", "--at", "7,60,60")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A video that is decoded anew in each pass, and a checkpoint every two blocks."""
    write_video_file(tmp_path / "v.mp4", moving_texture(18), options={"g": "6"})
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    monkeypatch.setattr(GapFilling, "frames", 3)
    for module in (stored_tracking, track_run):
        monkeypatch.setattr(module, "CHECKPOINT_FRAMES", 6)
    return tmp_path


def interrupt_after(monkeypatch, blocks):
    """Interrupt the run when so many blocks are written."""
    write, written = TrackStore.write, []

    def write_or_stop(store, block):
        write(store, block)
        written.append(block)
        if len(written) == blocks:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrackStore, "write", write_or_stop)
    return lambda: monkeypatch.setattr(TrackStore, "write", write)


# In the pass forward and in the one backward, a block after the last checkpoint.
@pytest.mark.parametrize("blocks", [3, 10])
def test_a_run_that_is_continued_gives_the_same_files(folder, blocks, run_vditrack, monkeypatch):
    monkeypatch.setattr(track_run, "CHECKPOINT_FRAMES", 1000)
    assert run_vditrack("track", "v.mp4", *POINTS, "-o", "whole", cwd=folder).returncode == 0
    monkeypatch.setattr(track_run, "CHECKPOINT_FRAMES", 6)
    undo = interrupt_after(monkeypatch, blocks)
    stopped = run_vditrack("track", "v.mp4", *POINTS, "-o", "out", cwd=folder)
    assert stopped.returncode == 130
    assert "--resume" in stopped.stderr
    partial = folder / "out" / "partial"
    assert np.load(partial / "visible.npy")[0, 0]
    assert [path.name for path in (folder / "out").iterdir()] == ["partial"]
    undo()
    done = run_vditrack("track", "v.mp4", *POINTS, "-o", "out", "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not partial.exists()
    # The bytes of overlay.mp4 depend on the encoder's threads.
    assert (folder / "out" / "overlay.mp4").exists()
    for name in ("tracks.npz", "tracks.csv"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_runs_are_not_mixed(folder, run_vditrack, assert_refused, monkeypatch):
    undo = interrupt_after(monkeypatch, 3)
    run_vditrack("track", "v.mp4", *POINTS, "-o", "out", cwd=folder)
    undo()
    command = ("track", "v.mp4", *POINTS, "-o", "out")
    message = "is an interrupted run, done up to frame 6. Add --resume"
    assert_refused(*command, message=message, cwd=folder)
    others = {
        "another set of points": ("track", "v.mp4", "--at", "0,40,31", "-o", "out"),
        "another recording": (*command, "--end", "0.6"),
    }
    with locked_folder(folder / "out", folder / "out"):
        for more in ((), ("--resume",)):
            assert_refused(*command, *more, message="another run writes in out", cwd=folder)
    for message, other in others.items():
        assert_refused(*other, "--resume", message=message, cwd=folder)
    with monkeypatch.context() as updated:
        updated.setattr(metadata, "version", lambda name: "99.0")
        assert_refused(*command, "--resume", message="another version of vditrack", cwd=folder)
    partial = folder / "out" / "partial"
    content = (partial / "points.npy").read_bytes()
    # Cut in the header, cut in the content, and a header that is not Python.
    for damaged in (content[:50], content[:-1], content.replace(b"}", b" ", 1)):
        (partial / "points.npy").write_bytes(damaged)
        assert_refused(*command, "--resume", message="points.npy is damaged", cwd=folder)
    (partial / "points.npy").write_bytes(content)
    (partial / "checkpoint.npz").write_bytes(b"none")
    assert_refused(*command, "--resume", message="checkpoint.npz is damaged", cwd=folder)
    (partial / "run.json").unlink()
    for more in ((), ("--resume",)):
        assert_refused(*command, *more, message="partial is no interrupted run: it", cwd=folder)
    shutil.rmtree(partial)
    partial.touch()
    assert_refused(*command, "--resume", message="partial is a file", cwd=folder)
    partial.unlink()
    partial.mkdir()
    assert run_vditrack(*command, cwd=folder).returncode == 0
    assert not partial.exists()
