"""Data sets in their published formats."""

import itertools
import json
import pickle
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vditrack import InputError
from vditrack.annotated_clip import AnnotatedClip
from vditrack.evaluation.datasets.registry import default_protocol, open_dataset
from vditrack.synthetic.layers.lookalikes import lookalike_clips

REAL = Path(__file__).parents[4] / "shared/data/davis32_dev"
RNG = np.random.default_rng(0)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + 252 * [9, 9, 9]


def picture(height=6, width=8):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def tapvid_clip(length=3, count=2, **changes):
    clip = {
        "video": np.stack([picture() for _ in range(length)]),
        "points": RNG.random((count, length, 2), np.float32),
        "occluded": RNG.random((count, length)) < 0.4,
    }
    return clip | changes


def pickled(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def write(path, image):
    """Write an RGB image with OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_mask(path, labels):
    """Write a mask as DAVIS has it, with a palette whose colours are not the indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, np.uint8)).convert("P")
    image.putpalette(PALETTE)
    image.save(path)


def assert_is(clip: AnnotatedClip, content, name):
    assert clip.name == name
    np.testing.assert_array_equal(clip.frames, content["video"])
    np.testing.assert_array_equal(clip.visible, ~content["occluded"])
    height, width = content["video"].shape[1:3]
    for n, t in zip(*np.nonzero(clip.visible), strict=True):
        x, y = content["points"][n, t]
        np.testing.assert_allclose(clip.points[n, t], [x * width, y * height], rtol=1e-6)
    assert clip.points.dtype == np.float32
    assert clip.frames.dtype == np.uint8
    assert clip.masks is None


@pytest.mark.parametrize("protocol", ["tapvid", "heft"])
def test_tapvid_davis_is_a_dict(tmp_path, protocol):
    content = {"goat": tapvid_clip(), "cows": tapvid_clip(5, 1)}
    dataset = open_dataset(str(pickled(tmp_path / "tapvid_davis.pkl", content)), protocol)
    assert (dataset.name, dataset.length) == ("tapvid_davis.pkl", 2)
    for clip, (name, expected) in zip(dataset.clips, content.items(), strict=True):
        assert_is(clip, expected, name)


def test_tapvid_rgb_stacking_is_a_list(tmp_path):
    content = [tapvid_clip(), tapvid_clip()]
    pickled(tmp_path / "data/stacking.pkl", content)
    dataset = open_dataset(str(tmp_path / "data"), "tapvid")
    assert (dataset.name, dataset.length) == ("data", 2)
    names = ["stacking-000", "stacking-001"]
    for clip, name, expected in zip(dataset.clips, names, content, strict=True):
        assert_is(clip, expected, name)


@pytest.mark.parametrize("form", [list, lambda images: np.array(images, object), np.array])
@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_tapvid_kinetics_is_encoded_images_in_shards(tmp_path, form, extension):
    clips = [tapvid_clip(), tapvid_clip(2)]
    for n, clip in enumerate(clips):
        images = [cv2.imencode(extension, frame[..., ::-1])[1].tobytes() for frame in clip["video"]]
        pickled(tmp_path / f"000{n}_of_0002.pkl", [clip | {"video": form(images)}])
        if extension == ".jpg":
            decoded = [cv2.imdecode(np.frombuffer(image, np.uint8), 1) for image in images]
            clip["video"] = np.stack(decoded)[..., ::-1]
    dataset = open_dataset(str(tmp_path), "tapvid")
    assert dataset.length is None
    names = ["0000_of_0002-000", "0001_of_0002-000"]
    for clip, name, expected in zip(dataset.clips, names, clips, strict=True):
        assert_is(clip, expected, name)


def test_a_shard_is_opened_when_its_turn_comes(tmp_path):
    pickled(tmp_path / "0.pkl", [tapvid_clip()])
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
    dataset = open_dataset(str(pickled(tmp_path / "a.pkl", [written])), "tapvid")
    assert_is(next(dataset.clips), clip, "a-000")


def test_occluded_points_may_be_anywhere(tmp_path):
    points = np.float32([[[0.5, 0.5], [np.nan, 7], [-0.1, 1.1], [np.inf, 0]]])
    occluded = np.array([[False, True, False, True]])
    content = {"a": tapvid_clip(4, points=points, occluded=occluded)}
    clip = next(open_dataset(str(pickled(tmp_path / "a.pkl", content)), "tapvid").clips)
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
    clips = open_dataset(str(pickled(tmp_path / "a.pkl", content)), "tapvid").clips
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
    path = pickled(tmp_path / "a.pkl", content)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(path), "tapvid").clips)


def folder_of_videos(root, names=("b", "a"), masks=True, tracks=True):
    """Write videos in the simple layout; return what was written."""
    written = {}
    for name in names:
        clip = tapvid_clip(12)
        clip["masks"] = RNG.integers(0, 4, (12, 6, 8), np.uint8)
        for t, frame in enumerate(clip["video"]):
            # Without leading zeros, 10 comes before 2 in the order of letters.
            write(root / name / f"frames/{t}.png", frame)
            if masks:
                write_mask(root / name / f"masks/{t}.png", clip["masks"][t])
        if tracks:
            np.savez(root / name / "tracks.npz", points=clip["points"], occluded=clip["occluded"])
        written[name] = clip
    return written


@pytest.mark.parametrize(
    ("protocol", "has"),
    [("tapvid", "tracks"), ("heft", "tracks"), ("davis", "masks"), ("badja", "tracks masks")],
)
def test_a_folder_of_videos(tmp_path, protocol, has):
    written = folder_of_videos(tmp_path, masks="masks" in has, tracks="tracks" in has)
    dataset = open_dataset(str(tmp_path), protocol)
    assert dataset.length == 2
    for clip, name in zip(dataset.clips, ["a", "b"], strict=True):
        if has == "tracks":
            assert_is(clip, written[name], name)
        np.testing.assert_array_equal(clip.frames, written[name]["video"])
        if "masks" in has:
            np.testing.assert_array_equal(clip.masks, written[name]["masks"])
        assert clip.points.shape == ((2, 12, 2) if "tracks" in has else (0, 12, 2))
        assert clip.visible.shape == clip.points.shape[:2]


def test_a_relative_folder_has_a_name(tmp_path, monkeypatch):
    folder_of_videos(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    assert open_dataset(".", "tapvid").name == "own"


def remove(path):
    return lambda root: (root / path).unlink()


def mask_of(mode, size=(8, 6)):
    return lambda root: Image.new(mode, size).save(root / "a/masks/3.png")


def savez(**arrays):
    return lambda root: np.savez(root / "a/tracks.npz", **arrays)


def put(path, content):
    return lambda root: (root / path).write_bytes(content)


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
        (lambda root: write(root / "a/frames/3.png", picture(7)), r"3\.png is 8 x 7"),
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
    folder_of_videos(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "badja").clips)


def test_masks_of_another_size_than_the_frames(tmp_path):
    folder_of_videos(tmp_path, names=["a"])
    for t in range(12):
        write_mask(tmp_path / f"a/masks/{t}.png", np.zeros((12, 16)))
    with pytest.raises(InputError, match="12 of 16 x 12 for frames 12 of 8 x 6"):
        next(open_dataset(str(tmp_path), "davis").clips)


def test_white_of_a_black_and_white_mask_is_object_1(tmp_path):
    written = folder_of_videos(tmp_path, names=["a"])["a"]["masks"]
    for t, mask in enumerate(written):
        Image.fromarray(mask > 1).save(tmp_path / f"a/masks/{t}.png")
    clip = next(open_dataset(str(tmp_path), "davis").clips)
    np.testing.assert_array_equal(clip.masks, written > 1)


def test_grey_masks(tmp_path):
    written = folder_of_videos(tmp_path, names=["a"])["a"]["masks"]
    for t, mask in enumerate(written):
        Image.fromarray(mask).save(tmp_path / f"a/masks/{t}.png")
    clip = next(open_dataset(str(tmp_path), "davis").clips)
    np.testing.assert_array_equal(clip.masks, written)


def test_frames_are_not_turned(tmp_path):
    """Annotations refer to the stored pixels, whatever the orientation in the metadata."""
    frame = np.zeros((16, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    folder_of_videos(tmp_path, names=["a"])
    for t in range(12):
        path = tmp_path / f"a/frames/{t}.png"
        Image.fromarray(frame).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    assert next(open_dataset(str(tmp_path), "tapvid").clips).frames.shape == (12, 16, 32, 3)


def davis(root, names, listed=None):
    written = {}
    for name in names:
        frames = [picture() for _ in range(4)]
        labels = RNG.integers(0, 3, (4, 6, 8), np.uint8)
        labels[:, 0, :3] = 255
        for t in range(4):
            path = root / f"JPEGImages/480p/{name}/{t:05d}.jpg"
            write(path, frames[t])
            frames[t] = cv2.imread(str(path))[..., ::-1]
            write_mask(root / f"Annotations/480p/{name}/{t:05d}.png", labels[t])
        written[name] = np.stack(frames), np.where(labels == 255, 0, labels)
    if listed is not None:
        (root / "ImageSets/2017").mkdir(parents=True)
        (root / "ImageSets/2017/val.txt").write_text("\n".join(listed) + "\n")
    return written


@pytest.mark.parametrize(
    ("listed", "names"), [(["goat", "bear"], ["goat", "bear"]), (None, ["bear", "cows", "goat"])]
)
def test_davis_2017(tmp_path, listed, names):
    written = davis(tmp_path, ["bear", "goat", "cows"], listed)
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
    davis(tmp_path, ["goat"], ["goat"])
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "davis").clips)


JOINTS = [8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36]


def badja(root, name="bear", annotated=(2, 5, 7), extra=False):
    """Write a video of frames 0 to 9, in which all joints but every third are visible."""
    if extra:
        images, masks = f"extra_videos/{name}/rgb", f"extra_videos/{name}/segmentations"
    else:
        images, masks = (
            f"DAVIS/{kind}/Full-Resolution/{name}" for kind in ("JPEGImages", "Annotations")
        )
    image_type = "png" if extra else "jpg"
    for t in range(10):
        write(root / images / f"{t:05d}.{image_type}", np.full((6, 8, 3), 20 * t, np.uint8))
        write_mask(root / masks / f"{t:05d}.png", np.arange(48).reshape(6, 8) % 4)
    rows = [
        {
            "image_path": f"{images}/{t:05d}.{image_type}",
            "segmentation_path": f"{masks}/{t:05d}.png",
            "joints": [[n / 10 + t, n / 8] for n in range(37)],
            "visibility": [n % 3 > 0 for n in range(37)],
        }
        for t in annotated
    ]
    annotations = root / f"joint_annotations/{name}.json"
    annotations.parent.mkdir(exist_ok=True, parents=True)
    annotations.write_text(json.dumps(rows))
    return annotations


@pytest.mark.parametrize("extra", [False, True])
def test_badja(tmp_path, extra):
    badja(tmp_path, extra=extra, annotated=(1, 3, 5))
    dataset = open_dataset(str(tmp_path), "badja")
    assert dataset.length == 1
    clip = next(dataset.clips)
    assert clip.name == "bear"
    assert clip.frames.shape == (5, 6, 8, 3)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), [20, 40, 60, 80, 100], atol=1)
    assert clip.points.shape == (20, 5, 2)
    assert not clip.visible[:, [1, 3]].any()
    assert not clip.masks[[1, 3]].any()
    for t, n in itertools.product((0, 2, 4), range(20)):
        joint = JOINTS[n]
        x, y = joint / 8, joint / 10 + t + 1
        np.testing.assert_allclose(clip.points[n, t], [x, y], rtol=1e-6)
        assert clip.visible[n, t] == (joint % 3 > 0 and x < 8 and y < 6)
        # Red in the palette of DAVIS: objects 1 and 3.
        np.testing.assert_array_equal(clip.masks[t], np.arange(48).reshape(6, 8) % 2)
    assert clip.visible[:, 0].sum() > 8
    assert not clip.visible[JOINTS.index(31), 2]


def test_badja_leaves_out_extra_videos_that_are_not_there(tmp_path):
    badja(tmp_path, "bear")
    badja(tmp_path, "rs_dog", extra=True)
    badja(tmp_path, "tiger", extra=True)
    (tmp_path / "extra_videos/tiger").rename(tmp_path / "elsewhere")
    dataset = open_dataset(str(tmp_path), "badja")
    assert dataset.length == 2
    assert [clip.name for clip in dataset.clips] == ["bear", "rs_dog"]


def test_badja_needs_davis(tmp_path):
    badja(tmp_path, "bear")
    (tmp_path / "DAVIS").rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"bear does not exist\. Unpack DAVIS-2017 .* into .*DAVIS"
    ):
        open_dataset(str(tmp_path), "badja")


def edited(**changes):
    def edit(root):
        path = root / "joint_annotations/bear.json"
        rows = json.loads(path.read_text())
        rows[1] |= changes
        path.write_text(json.dumps(rows))

    return edit


FULL = "Full-Resolution/bear"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("joint_annotations/bear.json", b"{}"), r"bear\.json is not an annotation file"),
        (put("joint_annotations/bear.json", b"[]"), r"bear\.json annotates no frame"),
        (put("joint_annotations/bear.json", b"\xff"), r"bear\.json is not an annotation file"),
        (edited(joints=[[0, 0]]), r"00005\.jpg: 1 joints and 37"),
        (edited(joints=[[0]] * 37), r"bear\.json is not an annotation file"),
        (edited(visibility=[True]), "37 joints and 1 "),
        (edited(image_path="DAVIS/first.jpg"), "not named after its frame number"),
        (edited(image_path="/etc/00005.jpg"), "outside the data set"),
        (edited(segmentation_path="../00005.png"), "outside the data set"),
        (remove(f"DAVIS/JPEGImages/{FULL}/00005.jpg"), r"JPEGImages.*00005\.jpg does not exist"),
        (remove(f"DAVIS/Annotations/{FULL}/00005.png"), r"Annotations.*00005\.png does not exist"),
        (put(f"DAVIS/Annotations/{FULL}/00005.png", b"x"), r"00005\.png is not a JPEG or PNG"),
        (remove("joint_annotations/bear.json"), "contains no annotations"),
    ],
)
def test_badja_that_is_damaged(tmp_path, damage, message):
    badja(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "badja").clips)


@pytest.mark.parametrize(
    ("make", "protocol", "advice"),
    [
        (lambda root: pickled(root / "a.pkl", [tapvid_clip()]), "davis", "tapvid or heft"),
        (lambda root: davis(root, ["goat"]), "tapvid", "davis"),
        (badja, "tapvid", "badja"),
        (badja, "davis", "badja"),
    ],
)
def test_the_protocol_has_to_fit(tmp_path, make, protocol, advice):
    make(tmp_path)
    with pytest.raises(InputError, match=f"cannot use. Use --protocol {advice}"):
        open_dataset(str(tmp_path), protocol)


@pytest.mark.parametrize("made", ["", "a/notes", ".hidden/frames"])
def test_a_folder_of_nothing(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match="contains no known data"):
        open_dataset(str(tmp_path), "tapvid")


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist"):
        open_dataset(str(tmp_path / "absent"), "tapvid")


@pytest.mark.parametrize(
    ("kind", "module", "function"),
    [
        ("synthetic", "layers.suite", "suite_clips"),
        ("tabletop", "tabletop.clips", "tabletop_clips"),
    ],
)
def test_rendered_clips(monkeypatch, kind, module, function):
    """The renderers get the seed. They are tested elsewhere."""
    fake = types.SimpleNamespace(COUNT=3, **{function: lambda seed: iter([seed])})
    monkeypatch.setitem(sys.modules, f"vditrack.synthetic.{module}", fake)
    monkeypatch.setattr(f"vditrack.synthetic.{module}", fake, raising=False)
    dataset = open_dataset(f"{kind}:17", "tapvid")
    assert (dataset.name, dataset.length, list(dataset.clips)) == (f"{kind}:17", 3, [17])


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:x", "synthetic:-1", "tabletop:1.5"])
def test_seeds_are_whole_numbers(source):
    with pytest.raises(InputError, match="is not a seed"):
        open_dataset(source, "tapvid")


@pytest.mark.parametrize("kind", ["lookalikes", "different"])
def test_rendered_masks(kind):
    dataset = open_dataset(f"{kind}:3", "davis")
    assert (dataset.name, dataset.length) == (f"{kind}:3", 30)
    expected = next(lookalike_clips(3, different=kind == "different"))
    np.testing.assert_array_equal(next(dataset.clips).frames, expected.frames)
    assert default_protocol(f"{kind}:3") == "davis"
    with pytest.raises(InputError, match="is not a seed"):
        open_dataset(f"{kind}:x", "davis")
    with pytest.raises(InputError, match=f"{kind}:3 is masks without tracks.*--protocol davis"):
        open_dataset(f"{kind}:3", "badja")


@pytest.mark.parametrize("source", ["synthetic:0", "tabletop:0", "lookalikes", "a/davis"])
def test_others_are_for_points(source):
    assert default_protocol(source) == "tapvid"


@pytest.mark.skipif(not REAL.is_dir(), reason="the data are not here")
@pytest.mark.parametrize("protocol", ["tapvid", "davis"])
def test_real_clips(protocol):
    dataset = open_dataset(str(REAL), protocol)
    assert dataset.length == 15
    clip = next(dataset.clips)
    assert clip.name == "bike-packing"
    assert clip.frames.shape == (32, 480, 910, 3)
    if protocol == "davis":
        assert np.unique(clip.masks[0]).tolist() == [0, 1, 2]
        return
    seen = clip.points[clip.visible]
    assert len(seen) > 100
    assert (seen >= 0).all()
    assert (seen <= (910, 480)).all()
