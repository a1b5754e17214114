"""What is tracked in one recording, by specifications of all kinds."""

import dataclasses

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from doubles.bags import IMAGE, camera_info, header, images, new, stamps, write_bag
from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from doubles.video_files import moving_texture, write_video_file
from vditrack import Tracker
from vditrack.annotation.annotate import annotate_unit
from vditrack.annotation.failures import SourceError
from vditrack.annotation.folders import LocalFolder
from vditrack.annotation.handling import Model, UnitHandler, digest_manifest
from vditrack.annotation.metric_positions import measure_positions
from vditrack.annotation.object_masks import describe_mask
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.specification import Specification, override_fields
from vditrack.annotation.track_tables import make_record, read_record, write_tracks
from vditrack.annotation.units import identify, list_units
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.errors import InputError
from vditrack.io.frame_source import open_source
from vditrack.io.video import read_video

LENGTH = 6


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    """By flow; the maps come from the frames without a model."""
    bundle = write_passthrough(tmp_path_factory.mktemp("bundle"), frames=4, described=3)
    return Tracker(bundle, settings=load_bundle(bundled_model()).manifest.matching)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A texture that moves by (-2, -1) pixels a frame, with a mask of two objects beside it."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video_file(path, moving_texture(LENGTH), options={"crf": "1"})
    mask = np.zeros((96, 128), np.uint8)
    cv2.ellipse(mask, (40, 50), (20, 30), 0, 0, 360, 3, cv2.FILLED)
    mask[30:60, 90:110] = 7
    cv2.imwrite(str(path.with_name("clip_mask.png")), mask)
    return path, mask


@pytest.fixture
def annotate(tracker):
    def run(path, topic=None, **fields):
        specification = override_fields(Specification(), fields)
        settings = Settings("b" * 64, "cpu", specification)
        source = Source(path, topic)
        (unit,) = list_units(source, identify(source, lambda *_: None), settings)
        return annotate_unit(unit, specification, tracker), settings

    return run


@pytest.mark.parametrize("choice", [{"grid": 8}, {"random": 30}, {"features": 10}])
def test_points_lie_on_the_objects_of_a_mask(annotate, clip, choice, tmp_path):
    path, mask = clip
    made, settings = annotate(path, mask="{stem}_mask.png", mask_frame=2, **choice)
    t, x, y = made.tracks.queries.T
    assert_array_equal(t, 2)
    assert_array_equal(mask[y.astype(int), x.astype(int)], made.objects)
    for number in (3, 7):
        count = (made.objects == number).sum()
        assert 3 <= count <= 64 if "grid" not in choice else count == {3: 52, 7: 64}[number]
    # Both directions, as far as the motion is known.
    moved = made.tracks.points[:, LENGTH - 1] - made.tracks.points[:, 0]
    assert_allclose(np.median(moved, axis=0), [-2 * (LENGTH - 1), 1 - LENGTH], atol=0.5)
    record = make_record(made, settings, "cpu")
    write_tracks(tmp_path / "t.parquet", made, record)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["object"].to_pylist() == made.objects.tolist() * LENGTH


def test_points_lie_in_boxes_and_are_filtered_and_padded_with_their_numbers(
    annotate, clip, tmp_path
):
    boxes = [[0.1, 0.1, 0.9, 0.9], [0.5, 0.25, 0.75, 0.75]]
    made, settings = annotate(
        clip[0], boxes=boxes, random=20, coordinates="normalized", pad_to=50, min_spread=0.001
    )
    assert made.tracks.queries.shape[0] <= 40
    shares = made.tracks.queries[:, 1:] / [128, 96]
    second = ((shares > boxes[1][:2]) & (shares < boxes[1][2:])).all(axis=1)
    assert_array_equal(made.objects, np.where(second, 2, 1))
    assert ((shares > 0.1) & (shares < 0.9)).all()
    assert 0 < second.sum() < 40
    write_tracks(tmp_path / "t.parquet", made, make_record(made, settings, "cpu"))
    table = pq.read_table(tmp_path / "t.parquet")
    missing = 50 - len(made.objects)
    assert table["object"].to_pylist()[:50] == [*made.objects.tolist(), *[None] * missing]
    few, _ = annotate(clip[0], boxes=boxes, random=20, coordinates="normalized", pad_to=5)
    assert len(few.objects) == len(few.tracks.queries) == 5


def test_masks_are_those_of_propagation(clip, tmp_path):
    path, mask = clip
    bundle = write_propagating(tmp_path / "bundle")
    specification = Specification(grid=2, mask="clip_mask.png", mask_frame=2, masks=True)
    digest = digest_manifest(bundle.root)
    settings = Settings(digest, "cpu", specification)
    handle = UnitHandler(Model(bundle.root, "cpu", 1), settings, LocalFolder(tmp_path))
    (unit,) = list_units(Source(path), handle(Source(path), lambda *_: None), settings)
    handle(unit, lambda *_: None)
    table = pq.read_table(tmp_path / f"masks/{unit.name}.parquet")
    assert read_record(tmp_path / f"tracks/{unit.name}.parquet").id == unit.id
    rows = table.to_pylist()
    assert [(row["frame"], row["object"]) for row in rows] == [
        (t, number) for t in range(2, LENGTH) for number in (3, 7)
    ]
    frames = read_video(path).frames
    expected = Tracker(bundle).propagate(frames, {2: mask})
    for row in rows:
        pixels = np.repeat(np.arange(len(row["counts"])) % 2 == 1, row["counts"])
        decoded = pixels.reshape(128, 96).T
        assert_array_equal(decoded, expected[row["frame"]] == row["object"])
        assert row["area"] == decoded.sum() > 0
        x, y, width, height = row["box"]
        assert (x, y, width, height) == cv2.boundingRect(decoded.astype(np.uint8))
    assert describe_mask(np.zeros((2, 3), bool)) == {"counts": [6], "area": 0, "box": None}
    assert describe_mask(np.ones((2, 3), bool))["counts"] == [0, 6]


def test_the_mask_decides_about_the_id(clip, annotate, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip[0].read_bytes())
    mask = path.with_name("cam_image.png")
    first = annotate(clip[0], mask="{stem}_mask.png", grid=2)[0].unit
    with pytest.raises(SourceError, match=r"there is no mask .*/masks/clip.png of"):
        annotate(path, mask="masks/{stem}.png", grid=2)
    settings = Settings("b" * 64, "cpu", Specification(grid=2, mask="{topic}.png"))
    ids = set()
    for size in (2, 3):
        cv2.imwrite(str(mask), np.pad(np.ones((90, 128 - size), np.uint8), ((6, 0), (size, 0))))
        (unit,) = list_units(Source(path, "/cam/image"), first.identity, settings)
        ids.add(unit.id)
    assert len(ids) == 2
    assert list_units(Source(path, "/cam/image"), first.identity, settings)[0].id in ids
    changed = dataclasses.replace(unit, mask_sha256="0" * 64, source=Source(path))
    specification = Specification(grid=2, mask="cam_image.png")
    with pytest.raises(SourceError, match=r"cam_image.png has changed"):
        annotate_unit(changed, specification, None)


def test_objects_that_do_not_fit_the_recording_are_refused(annotate, clip):
    path, mask = clip
    cv2.imwrite(str(path.with_name("small.png")), mask[:50])
    cv2.imwrite(str(path.with_name("empty.png")), 0 * mask)
    for fields, message in [
        ({"mask": "small.png"}, r"small.png is 128 x 50, and the frames are 128 x 96"),
        ({"mask": "empty.png"}, "marks no object"),
        ({"mask": "clip_mask.png", "mask_frame": 6}, "mask_frame is 6, and .* has 6 frames"),
        ({"boxes": [[130, 0, 140, 20]]}, "has no pixel in the image of 128 x 96"),
        ({"mask": "{frame}.png"}, r"the name of the mask has \{frame\}"),
        ({"mask": "a.png", "boxes": [[0, 0, 9, 9]]}, "one of mask and boxes"),
        ({"masks": True}, "masks are propagated from a mask"),
        ({"mask_frame": 2}, "mask_frame is the frame of a mask"),
    ]:
        with pytest.raises(InputError, match=message):
            annotate(path, grid=3, **fields)
    with pytest.raises(InputError, match="put on no mask or box"):
        annotate(path, queries=[[0, 5, 5]], mask="clip_mask.png")


def test_features_are_renewed_or_those_of_the_first_frame(annotate, clip):
    made, _ = annotate(clip[0], features=10)
    assert made.tracks.queries[:, 0].max() > 0
    assert made.measures.points == made.measures.queries == len(made.tracks.queries)
    first, _ = annotate(clip[0], features=10, renew=False)
    assert_array_equal(first.tracks.queries[:, 0], 0)
    same = made.tracks.queries[made.tracks.queries[:, 0] == 0]
    assert_allclose(first.tracks.queries, same, atol=1e-4)
    padded, _ = annotate(clip[0], features=10, pad_to=4)
    assert padded.tracks.points.shape == (4, LENGTH, 2)
    # Where a corner does not live, it is not invisible.
    wide, _ = annotate(clip[0], features=10, pad_to=100)
    assert wide.measures.visible_share == made.measures.visible_share


def depth_images(topic, frame_id="camera_optical", delay=0, size=(96, 128)):
    """Images of a slope, 1 m at the left side and 1 cm more in each column; none in the upper rows.

    The fourth of six is missing, the last one is damaged.
    """
    values = np.repeat(1000 + 10 * np.arange(size[1], dtype=np.uint16)[None], size[0], axis=0)
    values[:20] = 0
    messages = []
    for n, stamp in enumerate(stamps(LENGTH)):
        message = new(
            IMAGE,
            header=header(stamp + delay, frame_id),
            height=size[0],
            width=size[1],
            encoding="16UC1",
            is_bigendian=0,
            step=2 * size[1],
            data=values.view(np.uint8).ravel()[: None if n < LENGTH - 1 else 99],
        )
        messages.append((stamp + delay, message))
    return topic, IMAGE, messages[:3] + messages[4:]


@pytest.mark.parametrize("choice", [{"grid": 6, "pad_to": 40}, {"features": 20}])
def test_positions_in_metres_are_those_of_the_depth(annotate, tmp_path, choice):
    aligned, other = "/cam/aligned_depth/image_raw", "/cam/depth/image_raw"
    bag = write_bag(
        tmp_path / "bag",
        images(),
        camera_info(),
        depth_images(aligned, delay=10**6),
        depth_images(other, "depth_optical"),
    )
    assert identify(Source(bag), lambda *_: None).topics == ("/cam/image_raw",)
    made, settings = annotate(bag, "/cam/image_raw", depth=True, **choice)
    assert made.remarks[-2:] == (
        "2 of 6 frames have no depth.",
        "depth images left out because they are damaged: 1.",
    )
    write_tracks(tmp_path / "t.parquet", made, make_record(made, settings, "cpu"))
    table = pq.read_table(tmp_path / "t.parquet").to_pandas()
    x, y = table["x"], table["y"]
    known = table["visible"] & ~table["frame"].isin([3, 5]) & (y >= 20) & (x < 128)
    assert 20 < known.sum() < len(table) - 40
    assert_array_equal(table["z3d"].notna(), known)
    assert_array_equal(table["x3d"].notna(), known)
    z = 1 + 0.01 * np.floor(x[known])
    assert_allclose(table["z3d"][known], z, rtol=1e-5)
    # The principal point of the calibration counts from the centre of the first pixel.
    assert_allclose(table["x3d"][known], (x[known] - 64) / 100 * z, atol=1e-4)
    assert_allclose(table["y3d"][known], (y[known] - 48) / 100 * z, atol=1e-4)
    hidden = dataclasses.replace(made.tracks, visible=np.zeros_like(made.tracks.visible))
    frames = open_source(bag, "/cam/image_raw")
    assert np.isnan(measure_positions(settings.specification, frames, hidden).xyz).all()
    far, _ = annotate(bag, "/cam/image_raw", grid=2, depth_topic=aligned, depth_tolerance=1e-4)
    assert "6 of 6 frames have no depth." in far.remarks


def test_a_recording_without_depth_has_no_positions_in_metres(annotate, clip, tmp_path):
    first, second = depth_images("/a/depth"), depth_images("/b/depth")
    bags = {
        "no depth images of 128 x 96 pixels in the coordinate frame": [camera_info()],
        "the camera is not calibrated": [first],
        "has depth on /a/depth, /b/depth; name one": [camera_info(), first, second],
        "/c/depth has no depth images of 128 x 96": [
            camera_info(),
            depth_images("/c/depth", size=(48, 64)),
        ],
    }
    for number, (reason, topics) in enumerate(bags.items()):
        bag = write_bag(tmp_path / str(number), images(), *topics)
        named = {"depth_topic": "/c/depth"} if "/c/" in reason else {}
        made, settings = annotate(bag, "/cam/image_raw", grid=2, depth=True, **named)
        assert made.positions is None
        assert "there are no positions in metres: " in made.remarks[-1]
        assert reason in made.remarks[-1]
    made, settings = annotate(clip[0], grid=2, depth=True)
    assert made.remarks == ("there are no positions in metres: the recording is no bag.",)
    write_tracks(tmp_path / "t.parquet", made, make_record(made, settings, "cpu"))
    assert "z3d" not in pq.read_schema(tmp_path / "t.parquet").names
