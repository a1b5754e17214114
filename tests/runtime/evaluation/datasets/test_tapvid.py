"""TAP-Vid's pickles: what is read and what is refused."""

import cv2
import numpy as np
import pytest

from doubles.datasets import assert_equals, tapvid_clip, write_pickle, write_videos
from doubles.living_frames import LivingArrays
from vditrack import InputError
from vditrack.evaluation.datasets import image_files
from vditrack.evaluation.datasets.registry import open_dataset


@pytest.mark.parametrize("protocol", ["tapvid", "heft"])
def test_tapvid_davis_is_a_dict(tmp_path, protocol):
    content = {"goat": tapvid_clip(), "cows": tapvid_clip(5, 1)}
    dataset = open_dataset(str(write_pickle(tmp_path / "tapvid_davis.pkl", content)), protocol)
    assert (dataset.name, dataset.length) == ("tapvid_davis.pkl", 2)
    for clip, (name, expected) in zip(dataset.clips, content.items(), strict=True):
        assert_equals(clip, expected, name)


def test_tapvid_rgb_stacking_is_a_list(tmp_path):
    content = [tapvid_clip(), tapvid_clip()]
    write_pickle(tmp_path / "data/stacking.pkl", content)
    dataset = open_dataset(str(tmp_path / "data"), "tapvid")
    assert (dataset.name, dataset.length) == ("data", 2)
    names = ["stacking-000", "stacking-001"]
    for clip, name, expected in zip(dataset.clips, names, content, strict=True):
        assert_equals(clip, expected, name)


@pytest.mark.parametrize("form", [list, lambda images: np.array(images, object), np.array])
@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_tapvid_kinetics_is_encoded_images_in_shards(tmp_path, form, extension):
    clips = [tapvid_clip(), tapvid_clip(2)]
    for n, clip in enumerate(clips):
        images = [cv2.imencode(extension, frame[..., ::-1])[1].tobytes() for frame in clip["video"]]
        write_pickle(tmp_path / f"000{n}_of_0002.pkl", [clip | {"video": form(images)}])
        if extension == ".jpg":
            decoded = [cv2.imdecode(np.frombuffer(image, np.uint8), 1) for image in images]
            clip["video"] = np.stack(decoded)[..., ::-1]
    dataset = open_dataset(str(tmp_path), "tapvid")
    assert dataset.length is None
    names = ["0000_of_0002-000", "0001_of_0002-000"]
    for clip, name, expected in zip(dataset.clips, names, clips, strict=True):
        assert_equals(clip, expected, name)


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_frames_are_resized_as_they_are_decoded(tmp_path, layout, monkeypatch):
    if layout == "folders":
        write_videos(tmp_path, names=["a"])
    else:
        clip = tapvid_clip(12)
        images = [cv2.imencode(".png", frame)[1].tobytes() for frame in clip["video"]]
        write_pickle(tmp_path / "0.pkl", [clip | {"video": images}])
    living, decode = LivingArrays(), image_files.decode_rgb
    monkeypatch.setattr(image_files, "decode_rgb", lambda image: living.add(decode(image)))
    (expected,) = (clip.resize(20, 20) for clip in open_dataset(str(tmp_path), "tapvid").clips)
    assert living.most <= 4
    (found,) = open_dataset(str(tmp_path), "tapvid", 20).clips
    assert living.most <= 4
    assert found.frames.shape[1:3] == (20, 20)
    for name in ("frames", "points", "visible"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def test_a_shard_is_opened_when_its_turn_comes(tmp_path):
    write_pickle(tmp_path / "0.pkl", [tapvid_clip()])
    (tmp_path / "1.pkl").write_bytes(b"damaged")
    clips = open_dataset(str(tmp_path), "tapvid").clips
    assert next(clips).name == "0-000"
    with pytest.raises(InputError, match=r"1\.pkl is damaged"):
        next(clips)


def test_images_that_python_2_wrote(tmp_path):
    """Byte strings of Python 2 are read as text, one character a byte."""
    clip = tapvid_clip(1)
    image = cv2.imencode(".png", clip["video"][0, ..., ::-1])[1].tobytes()
    written = clip | {"video": [image.decode("latin-1")]}
    dataset = open_dataset(str(write_pickle(tmp_path / "a.pkl", [written])), "tapvid")
    assert_equals(next(dataset.clips), clip, "a-000")


def test_occluded_points_may_be_anywhere(tmp_path):
    points = np.float32([[[0.5, 0.5], [np.nan, 7], [-0.1, 1.1], [np.inf, 0]]])
    occluded = np.array([[False, True, False, True]])
    content = {"a": tapvid_clip(4, points=points, occluded=occluded)}
    clip = next(open_dataset(str(write_pickle(tmp_path / "a.pkl", content)), "tapvid").clips)
    np.testing.assert_allclose(clip.points[0, ::2], [[4, 3], [-0.8, 6.6]], rtol=1e-6)
    assert np.isfinite(clip.points).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.zeros((3, 6, 8), np.uint8)}, "video is uint8 .3, 6, 8."),
        ({"video": np.zeros((3, 6, 8, 4), np.uint8)}, r"not uint8 \[T, H, W, 3\]"),
        ({"video": np.zeros((3, 6, 8, 3), np.float32)}, "video is float32"),
        ({"video": np.zeros((0, 6, 8, 3), np.uint8)}, "video is uint8 .0, 6, 8, 3."),
        ({"video": []}, "neither an array nor a list"),
        ({"video": None}, "neither an array nor a list"),
        ({"video": [b"no image"] * 3}, "frame 0 is not a JPEG or PNG"),
        ({"video": [b""] * 3}, "frame 0 is not a JPEG or PNG"),
        ({"video": [3, 4, 5]}, "frame 0 is not an encoded image"),
        ({"points": np.zeros((2, 4, 2), np.float32)}, r"points \[2, 4, 2\] .* of 3 frames"),
        ({"points": np.zeros((1, 3, 2), np.float32)}, r"points \[1, 3, 2\] and occluded \[2, 3\]"),
        ({"points": np.zeros((2, 3, 3), np.float32)}, r"points \[2, 3, 3\]"),
        ({"points": np.zeros((2, 3, 2), int)}, "points is int64"),
        ({"points": [[0.5, 0.5]]}, "points is list"),
        ({"points": np.full((2, 3, 2), 40, np.float32)}, "not fractions"),
        ({"points": np.full((2, 3, 2), np.nan, np.float32)}, "not fractions"),
        ({"occluded": np.zeros((2, 4), bool)}, "occluded .2, 4."),
        ({"occluded": np.zeros((2, 3), np.uint8)}, "occluded is uint8"),
        ({"occluded": np.zeros(3, bool)}, "occluded is bool .3."),
    ],
)
def test_tapvid_clips_that_do_not_fit_together(tmp_path, changes, message):
    fine = {"occluded": np.zeros((2, 3), bool)}
    content = {"fine": tapvid_clip(), "goat": tapvid_clip(**(fine | changes))}
    clips = open_dataset(str(write_pickle(tmp_path / "a.pkl", content)), "tapvid").clips
    next(clips)
    with pytest.raises(InputError, match=rf"a\.pkl, clip goat.*{message}"):
        next(clips)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains no clips"),
        ([], "contains no clips"),
        ("text", "contains no clips"),
        (np.zeros(3), "contains no clips"),
        ({"goat": 3}, "clip goat is not a dict"),
        ({"goat": {"video": 3, "points": 3}}, "clip goat is not a dict of video, points, occluded"),
        ({"goat": {1, 2}}, "plain data does not need"),
    ],
)
def test_files_that_are_not_tapvid(tmp_path, content, message):
    path = write_pickle(tmp_path / "a.pkl", content)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(path), "tapvid").clips)
