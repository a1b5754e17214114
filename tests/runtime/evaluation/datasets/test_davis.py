"""Folders of images: DAVIS-2017 and the simple layout."""

import numpy as np
import pytest
from PIL import Image

from doubles.datasets import (
    assert_equals,
    put,
    random_image,
    remove,
    write_davis,
    write_image,
    write_mask,
    write_videos,
)
from vditrack import InputError
from vditrack.evaluation.datasets.registry import open_dataset


@pytest.mark.parametrize(
    ("protocol", "has"),
    [("tapvid", "tracks"), ("heft", "tracks"), ("davis", "masks"), ("badja", "tracks masks")],
)
def test_a_folder_of_videos(tmp_path, protocol, has):
    written = write_videos(tmp_path, masks="masks" in has, tracks="tracks" in has)
    dataset = open_dataset(str(tmp_path), protocol)
    assert dataset.length == 2
    for clip, name in zip(dataset.clips, ["a", "b"], strict=True):
        if has == "tracks":
            assert_equals(clip, written[name], name)
        np.testing.assert_array_equal(clip.frames, written[name]["video"])
        if "masks" in has:
            np.testing.assert_array_equal(clip.masks, written[name]["masks"])
        assert clip.points.shape == ((2, 12, 2) if "tracks" in has else (0, 12, 2))
        assert clip.visible.shape == clip.points.shape[:2]


def mask_of(mode, size=(8, 6)):
    return lambda root: Image.new(mode, size).save(root / "a/masks/3.png")


def savez(**arrays):
    return lambda root: np.savez(root / "a/tracks.npz", **arrays)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("a/tracks.npz"), r"a has no tracks\.npz"),
        (remove("a/masks/3.png"), "masks .* differ: 3 is in only one of them"),
        (remove("a/frames/3.png"), r"tracks\.npz: points \[2, 12, 2\] .* of 11 frames"),
        (put("a/frames/3.png", b"x"), r"3\.png is not a JPEG or PNG image"),
        (put("a/masks/3.png", b"x"), r"3\.png is no PNG image"),
        (mask_of("RGB"), r"3\.png has colours"),
        (mask_of("I;16"), r"3\.png has .* more than 8 bits"),
        (mask_of("L", (9, 6)), r"3\.png is 9 x 6, but the first of its clip is 8 x 6"),
        (lambda root: write_image(root / "a/frames/3.png", random_image(7)), r"3\.png is 8 x 7"),
        (put("a/tracks.npz", b"x"), r"tracks\.npz is not a NumPy archive"),
        (put("a/tracks.npz", b"PK\x03\x04 but no more"), r"tracks\.npz is not a NumPy archive"),
        (lambda root: np.save((root / "a/tracks.npz").open("wb"), [1]), "is not a NumPy archive"),
        (savez(points=np.zeros((1, 12, 2))), "needs arrays points and occluded: .*occluded"),
        (savez(points=np.array([None]), occluded=np.zeros((1, 12), bool)), "not a NumPy archive"),
        (
            savez(points=np.zeros((1, 11, 2), np.float32), occluded=np.zeros((1, 11), bool)),
            r"tracks\.npz: points \[1, 11, 2\] .* of 12 frames",
        ),
    ],
)
def test_folders_of_videos_that_are_damaged(tmp_path, damage, message):
    write_videos(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "badja").clips)


def test_masks_of_another_size_than_the_frames(tmp_path):
    write_videos(tmp_path, names=["a"])
    for t in range(12):
        write_mask(tmp_path / f"a/masks/{t}.png", np.zeros((12, 16)))
    with pytest.raises(InputError, match="12 of 16 x 12 for frames 12 of 8 x 6"):
        next(open_dataset(str(tmp_path), "davis").clips)


def test_white_of_a_black_and_white_mask_is_object_1(tmp_path):
    written = write_videos(tmp_path, names=["a"])["a"]["masks"]
    for t, mask in enumerate(written):
        Image.fromarray(mask > 1).save(tmp_path / f"a/masks/{t}.png")
    clip = next(open_dataset(str(tmp_path), "davis").clips)
    np.testing.assert_array_equal(clip.masks, written > 1)


def test_grey_masks(tmp_path):
    written = write_videos(tmp_path, names=["a"])["a"]["masks"]
    for t, mask in enumerate(written):
        Image.fromarray(mask).save(tmp_path / f"a/masks/{t}.png")
    clip = next(open_dataset(str(tmp_path), "davis").clips)
    np.testing.assert_array_equal(clip.masks, written)


def test_frames_are_not_turned(tmp_path):
    """Annotations refer to the stored pixels, whatever the orientation in the metadata."""
    frame = np.zeros((16, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    write_videos(tmp_path, names=["a"])
    for t in range(12):
        path = tmp_path / f"a/frames/{t}.png"
        Image.fromarray(frame).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    assert next(open_dataset(str(tmp_path), "tapvid").clips).frames.shape == (12, 16, 32, 3)


@pytest.mark.parametrize(
    ("listed", "names"), [(["goat", "bear"], ["goat", "bear"]), (None, ["bear", "cows", "goat"])]
)
def test_davis_2017(tmp_path, listed, names):
    written = write_davis(tmp_path, ["bear", "goat", "cows"], listed)
    dataset = open_dataset(str(tmp_path), "davis")
    assert dataset.length == len(names)
    for clip, name in zip(dataset.clips, names, strict=True):
        assert clip.name == name
        frames, masks = written[name]
        np.testing.assert_array_equal(clip.frames, frames)
        np.testing.assert_array_equal(clip.masks, masks)
        assert clip.masks.dtype == np.uint8
        assert clip.points.shape == (0, 4, 2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("Annotations/480p/goat/00002.png"), "differ: 00002"),
        (remove("JPEGImages/480p/goat/00002.jpg"), "differ: 00002"),
        (put("ImageSets/2017/val.txt", b"goat\nlion\n"), "JPEGImages/480p/lion is not a folder"),
        (put("ImageSets/2017/val.txt", b"\n"), "lists no sequence. Unpack"),
        (
            lambda root: write_mask(root / "Annotations/480p/goat/00000.png", np.full((6, 8), 255)),
            "00000.png contains no object",
        ),
    ],
)
def test_davis_that_is_damaged(tmp_path, damage, message):
    write_davis(tmp_path, ["goat"], ["goat"])
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "davis").clips)
