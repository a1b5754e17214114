"""Masks of long recordings in ``propagate`` and ``track``: interrupted, refused, continued."""

import json

import numpy as np
import pytest
from PIL import Image

from doubles.living_frames import LivingArrays
from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from doubles.video_files import moving_texture, write_video_file
from vditrack.cli import stored_propagation
from vditrack.io import frame_source
from vditrack.io.frame_source import FrameSource
from vditrack.io.mask_store import MaskStore, name_mask
from vditrack.masks import clip_propagation

MASKS = ("--mask", "first.png", "--object", "7:late.png")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A video that is decoded anew in each pass, and a checkpoint every two blocks."""
    write_video_file(tmp_path / "v.mp4", moving_texture(18), options={"g": "6"})
    for name, index, x in (("first", 3, 10), ("late", 1, 60)):
        mask = np.zeros((96, 128), np.uint8)
        mask[20:60, x : x + 40] = index
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    part = write_passthrough(tmp_path / "part", frames=4, described=3)
    write_propagating(tmp_path / "bundle", motion=part.root, appearance=part.root)
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    monkeypatch.setattr(clip_propagation, "_BLOCK", 3)
    monkeypatch.setattr(stored_propagation, "CHECKPOINT_FRAMES", 6)
    return tmp_path


def interrupt_after(monkeypatch, blocks):
    """Interrupt the run when so many blocks are written."""
    write, written = MaskStore.write, []

    def write_or_stop(store, *block):
        write(store, *block)
        written.append(block)
        if len(written) == blocks:
            raise KeyboardInterrupt

    monkeypatch.setattr(MaskStore, "write", write_or_stop)
    return lambda: monkeypatch.setattr(MaskStore, "write", write)


def test_a_run_that_is_continued_gives_the_same_masks(
    folder, run_vditrack, assert_refused, monkeypatch
):
    command = ("propagate", "v.mp4", *MASKS, "--bundle", "bundle")
    living, decode = LivingArrays(), FrameSource._decode
    with monkeypatch.context() as counted:
        counted.setattr(FrameSource, "_decode", lambda *given: map(living.add, decode(*given)))
        done = run_vditrack(*command, "-o", "whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    # Those that are decoded ahead, of a motion and an appearance part.
    assert living.most <= 14
    partial = folder / "out" / "partial"
    undo = interrupt_after(monkeypatch, 1)
    stopped = run_vditrack(*command, "-o", "out", cwd=folder)
    assert stopped.returncode == 130
    # Before the first checkpoint there is nothing to continue.
    assert "--resume" not in stopped.stderr and not (folder / "out").exists()
    undo()
    undo = interrupt_after(monkeypatch, 3)
    stopped = run_vditrack(*command, "-o", "out", cwd=folder)
    assert stopped.returncode == 130
    assert "partial has the masks of this run so far" in stopped.stderr
    assert len(list((partial / "masks").iterdir())) == 9
    undo()
    again = (*command, "-o", "out")
    message = "is an interrupted run, done up to frame 6. Add --resume"
    assert_refused(*again, message=message, cwd=folder)
    other = ("propagate", "v.mp4", "--mask", "first.png", "--bundle", "bundle", "-o", "out")
    assert_refused(*other, "--resume", message="another set of masks", cwd=folder)
    image = partial / "masks" / "00002.png"
    content = image.read_bytes()
    image.write_bytes(content[:-1])
    assert_refused(*again, "--resume", message="00002.png is damaged", cwd=folder)
    image.write_bytes(content)
    done = run_vditrack(*again, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "out").iterdir()} == {
        "masks", "overlay.mp4", "result.json",
    }  # fmt: skip
    names = sorted(path.name for path in (folder / "whole" / "masks").iterdir())
    assert names == [f"{t:05}.png" for t in range(18)]
    for name in names:
        found, expected = (folder / out / "masks" / name for out in ("out", "whole"))
        assert found.read_bytes() == expected.read_bytes()
    found, expected = (
        json.loads((folder / out / "result.json").read_text()) for out in ("out", "whole")
    )
    assert found["objects"] == expected["objects"]
    assert [len(an_object["pixels"]) for an_object in found["objects"]] == [18, 18]


def test_tracks_with_masks_are_continued(folder, run_vditrack, monkeypatch):
    command = ("track", "v.mp4", "--grid", "3", *MASKS, "--bundle", "bundle")
    living, decode = LivingArrays(), FrameSource._decode
    with monkeypatch.context() as counted:
        counted.setattr(FrameSource, "_decode", lambda *given: map(living.add, decode(*given)))
        assert run_vditrack(*command, "-o", "whole", cwd=folder).returncode == 0
    assert living.most <= 14
    undo = interrupt_after(monkeypatch, 3)
    stopped = run_vditrack(*command, "-o", "out", cwd=folder)
    assert "partial-masks has the masks of this run so far" in stopped.stderr
    undo()
    done = run_vditrack(*command, "-o", "out", "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "out" / "partial-masks").exists()
    for name in ("tracks.npz", "tracks.csv"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    with np.load(folder / "out" / "tracks.npz") as tracks:
        assert set(np.unique(tracks["object_id"])) == {0, 3, 4}


def test_names_of_masks_have_as_many_digits_for_all_frames():
    names = [name_mask(frame, count) for frame, count in ((0, 5), (99999, 100000), (7, 100001))]
    assert names == ["00000.png", "99999.png", "000007.png"]
