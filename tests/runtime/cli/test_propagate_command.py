"""``vditrack propagate`` as a user runs it."""

import errno
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from doubles.propagating import write_propagating
from vditrack import Tracker
from vditrack.cli.propagate_result import list_objects
from vditrack.io.video import read_video, write_video

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 96, 128


@pytest.fixture
def run(run_vditrack):
    return partial(run_vditrack, "propagate")


def box(index: int, x: int, y: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + 40, x : x + 48] = index
    return mask


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_propagating(tmp_path_factory.mktemp("bundles") / "both").root


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a clip of 5 frames, 128 x 96, and masks of it."""
    frames = [astronaut()[150:246, 60 + 2 * t : 188 + 2 * t] for t in range(5)]
    write_video(tmp_path / "clip.mp4", frames, np.arange(5) / 10)
    Image.fromarray(box(7, 8, 10) + box(2, 70, 40)).save(tmp_path / "first.png")
    Image.fromarray(box(9, 40, 50)).save(tmp_path / "late.png")
    (tmp_path / "parts").mkdir()
    for name, mask in (("cup", box(255, 8, 20)), ("hand", box(1, 60, 40))):
        Image.fromarray(mask).save(tmp_path / "parts" / f"{name}.png")
    return tmp_path


def masks_in(folder: Path) -> np.ndarray:
    """Masks as Pillow reads them."""
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"{t:05}.png" for t in range(len(paths))]
    images = [Image.open(path) for path in paths]
    assert {image.mode for image in images} == {"P"}
    return np.stack([np.array(image) for image in images])


def test_masks_an_overlay_and_a_summary_are_written(folder, bundle, run):
    done = run("clip.mp4", "--mask", "first.png", "--bundle", bundle, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    out = folder / "clip_masks"
    masks = masks_in(out / "masks")
    video = read_video(folder / "clip.mp4")
    first = np.array(Image.open(folder / "first.png"))
    np.testing.assert_array_equal(masks, Tracker.load(bundle).propagate(video.frames, first))
    assert read_video(out / "overlay.mp4").frames.shape == (5, HEIGHT, WIDTH, 3)
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    assert (result["frames"], result["width"], result["height"]) == (5, WIDTH, HEIGHT)
    assert result["times"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)
    assert [found["index"] for found in result["objects"]] == [2, 7]
    for found in result["objects"]:
        assert found["pixels"] == (masks == found["index"]).sum(axis=(1, 2)).tolist()
        assert (found["marked"], found["frames_present"], found["lost_at"]) == ([0], 5, None)
    assert result["bundle"] == str(bundle)


def test_what_was_done_to_a_mask_is_said(folder, bundle, run):
    levels = np.clip(40 - abs(np.arange(WIDTH) - 60), 0, 20) * 255 // 20
    Image.fromarray(np.tile(levels.astype(np.uint8), (HEIGHT, 1))).save(folder / "soft.png")
    done = run("clip.mp4", "--mask", "soft.png", "--bundle", bundle, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [found["index"] for found in result["objects"]] == [255]
    assert result["objects"][0]["pixels"][0] == HEIGHT * np.count_nonzero(levels >= 127.5)
    (remark,) = result["remarks"]
    assert "soft.png: 20 grey levels, most of them at smooth edges, are read as one" in remark
    assert f"note: {remark}" in done.stderr


def test_an_overlay_that_cannot_be_written_costs_no_masks(folder, bundle, run, monkeypatch):
    def fail(path, frames, times):
        path.write_text("half")
        next(iter(frames))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("vditrack.cli.propagate.write_video", fail)
    arguments = ["clip.mp4", "--mask", "first.png", "--bundle", bundle, "--json", "-o", "parts"]
    done = run(*arguments, cwd=folder)
    assert done.returncode == 3
    assert "overlay.mp4 was not written: [Errno 5] Input/output error" in done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((folder / "parts" / "result.json").read_text())
    assert result["overlay"] is None
    names = {"cup.png", "hand.png", "masks", "result.json"}
    assert {path.name for path in (folder / "parts").iterdir()} == names
    assert masks_in(folder / "parts" / "masks").shape == (5, HEIGHT, WIDTH)


def test_the_bundled_model_needs_nothing_given(folder, run):
    done = run("clip.mp4", "--mask", "first.png", "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    masks, truth = masks_in(folder / "out" / "masks"), box(1, 8 - 2 * 4, 10)
    assert set(np.unique(masks)) == {0, 2, 7}
    # The camera pans by 2 pixels a frame.
    found = masks[-1] == 7
    assert (found & (truth > 0)).sum() / (found | (truth > 0)).sum() > 0.5


def test_tracks_say_which_object_a_point_is_on(folder, run_vditrack):
    arguments = ["clip.mp4", "--grid", "8", "-o", "tracks"]
    done = run_vditrack("track", *arguments, "--mask", "first.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    video = read_video(folder / "clip.mp4")
    masks = Tracker.load().propagate(video.frames, np.array(Image.open(folder / "first.png")))
    with np.load(folder / "tracks" / "tracks.npz") as tracks:
        assert set(np.unique(tracks["object_id"])) == {0, 2, 7}
        for points, visible, found, mask in zip(
            *(np.moveaxis(tracks[name], 1, 0) for name in ("points", "visible", "object_id")),
            masks,
            strict=True,
        ):
            shown = visible & (points >= 0).all(1) & (points < [WIDTH, HEIGHT]).all(1)
            expected = [mask[int(y), int(x)] for x, y in points[shown]]
            np.testing.assert_array_equal(found[shown], expected)
            assert not found[~shown].any()
    tinted = read_video(folder / "tracks" / "overlay.mp4").frames.astype(int)
    assert run_vditrack("track", *arguments, cwd=folder).returncode == 0
    plain = read_video(folder / "tracks" / "overlay.mp4").frames.astype(int)
    changed = np.abs(tinted - plain).mean(axis=(1, 2, 3), where=masks[..., None] > 0)
    assert changed.min() > 3 * np.abs(tinted - plain).mean(where=masks[..., None] == 0)


def test_points_of_a_bundle_without_masks_are_on_no_object(folder, run_vditrack):
    write_propagating(folder / "points", None)
    arguments = ["clip.mp4", "--grid", "2", "--mask", "first.png", "--bundle", "points"]
    done = run_vditrack("track", *arguments, cwd=folder)
    assert done.returncode == 2 and "tracks points alone" in done.stderr
    assert not (folder / "clip_tracks").exists()


def test_objects_in_files_of_their_own_are_numbered_and_named(folder, bundle, run):
    done = run(
        "clip.mp4", "--object", "parts", "--object", "2:late.png", "--mask", "first.png",
        "--bundle", bundle, "-o", "out", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "propagated 5 objects through 5 frames of 128 x 96" in done.stdout
    assert "object 8 (cup): in 5 frames" in done.stdout
    assert "object 10 (late): in 3 frames" in done.stdout
    masks = masks_in(folder / "out" / "masks")
    expected = box(7, 8, 10) + box(2, 70, 40)
    for index, x, y in ((8, 8, 20), (9, 60, 40)):
        expected[box(1, x, y) == 1] = index
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_array_equal(masks[2] == 10, box(1, 40, 50) == 1)
    assert not (masks[:2] == 10).any()


def test_masks_of_other_frames_and_appearance_alone(folder, bundle, run):
    arguments = ["clip.mp4", "--mask", "0:first.png", "--mask", "3:late.png", "--bundle", bundle]
    done = run(*arguments, "--motion-weight", "0", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["propagation"]["motion_weight"] == 0
    assert [found["marked"] for found in result["objects"]] == [[0], [0], [3]]
    again = run(*arguments, "--start", "0.2", cwd=folder)
    assert again.returncode == 2, "the stretch has frames 0 to 2"
    assert "frame 3; the clip's frames are 0 to 2" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no object is marked"),
        (["--mask", "small.png"], "the mask of frame 0 is 64 x 48, the frame 128 x 96"),
        (["--mask", "empty.png"], "empty.png marks no object"),
        (["--mask", "picture.png"], "picture.png has"),
        (["--mask", "photo.jpg"], "photo.jpg is no PNG"),
        (["--mask", "text.png"], "text.png is no PNG"),
        (["--mask", "cut.png"], "cut.png is no PNG image, or a damaged one"),
        (["--mask", "absent.png"], "absent.png cannot be read: No such file"),
        (["--mask", ""], "empty name"),
        (["--mask", "bytes.png"], "bytes.png is no PNG"),
        (["--mask", "first.png", "--mask", "0:late.png"], "frame 0 has two masks"),
        (["--mask", "5:first.png"], "frame 5; the clip's frames are 0 to 4"),
        (["--object", "many"], "256 objects"),
        (["--object", "nothing"], "nothing holds no .png file"),
        (["--object", "first.png", "--object", "small.png"], "small.png is 64 x 48"),
        (["--object", "late.png", "--object", "late.png"], "covers the whole of object 1"),
        (["--mask", "first.png", "--motion-weight", "1.5"], "--motion-weight 1.5"),
        (["--mask", "first.png", "--motion-weight", "nan"], "--motion-weight nan"),
        (["--mask", "masks/first.png", "-o", "."], "first.png is an input"),
        (["--mask", "first.png", "--bundle", "plain"], "plain) tracks points alone"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folder, bundle, arguments, message, assert_refused
):
    first = np.array(Image.open(folder / "first.png"))
    Image.fromarray(first[::2, ::2]).save(folder / "small.png")
    Image.fromarray(0 * first).save(folder / "empty.png")
    Image.fromarray(astronaut()[:HEIGHT, :WIDTH]).save(folder / "picture.png")
    Image.fromarray(first).save(folder / "photo.jpg")
    (folder / "masks").mkdir()
    Image.fromarray(first).save(folder / "masks" / "first.png")
    (folder / "bytes.png").touch()
    (folder / "text.png").write_text("no image\n" * 50)
    (folder / "cut.png").write_bytes((folder / "first.png").read_bytes()[:-30])
    for name in ("many", "nothing"):
        (folder / name).mkdir()
    for n in range(256 * (arguments == ["--object", "many"])):
        Image.fromarray(first).save(folder / "many" / f"{n}.png")
    if "plain" in arguments:
        write_propagating(folder / "plain", settings=None)
    chosen = arguments if "--bundle" in arguments else [*arguments, "--bundle", bundle]
    assert_refused("propagate", "clip.mp4", *chosen, message=message, cwd=folder)


def test_when_an_object_was_lost():
    carried = np.zeros((5, 4, 4), np.uint8)
    carried[0, :2], carried[1, :1], carried[3, 0, 0] = 6, 6, 6
    carried[2:, 2:] = 4
    marks = {0: np.full((4, 4), 6, np.uint8), 2: 4 * np.tri(4, dtype=np.uint8)}
    areas = np.stack([(carried == index).sum(axis=(1, 2)) for index in (4, 6)], axis=1)
    four, six = list_objects(areas, marks, {6: "cup"})
    assert (four.index, four.name, four.marked) == (4, None, [2])
    assert (four.pixels, four.frames_present, four.lost_at) == ([0, 0, 8, 8, 8], 3, None)
    assert (six.index, six.name, six.marked) == (6, "cup", [0])
    assert (six.pixels, six.frames_present, six.lost_at) == ([8, 4, 0, 1, 0], 3, 4)
