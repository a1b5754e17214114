"""Points that are added on a frame of the past, in closed form."""

import cv2
import numpy as np
import pytest

from doubles.passthrough import write_passthrough
from doubles.slow_model import SlowModel, await_description
from vditrack import InputError, Tracker
from vditrack.bundle.configuration import LiveTracking
from vditrack.streams.recent_images import RecentImages
from vditrack.synthetic.layers.scenes import draw_scene

HEIGHT, WIDTH = 480, 640
RATE, SPEED, LATE = 30, 60.0, 9
"""Frames a second, pixels a second, and frames that a detector needs: 300 ms."""
PICTURE = cv2.resize(draw_scene(np.random.default_rng(3), 480, 640, ()).render(0.0), (1280, 960))
MARKED = np.float32(np.random.default_rng(5).uniform((200, 40), (600, 440), (40, 2)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Mean colours: exact and fast; its accuracy does not matter here."""
    return write_passthrough(tmp_path_factory.mktemp("bundle"))


def shoot(n, size=(WIDTH, HEIGHT)):
    """The n-th frame: the picture moves to the left."""
    shift = np.float32([[1, 0, -40 - SPEED * n / RATE], [0, 1, -200]])
    frame = cv2.warpAffine(PICTURE, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return frame if size == (WIDTH, HEIGHT) else cv2.resize(frame, size)


def errors(update, frames, marked=MARKED):
    truth = marked - np.float32([SPEED * frames / RATE, 0])
    return np.linalg.norm(update.points - truth, axis=1)[update.visible]


def stamp(n):
    return 1_700_000_000 + n / RATE


def push(live, frames, shoot=shoot):
    for n in frames:
        update = live.push(shoot(n), stamp(n))
    return update


@pytest.mark.parametrize("quick", [True, False])
def test_points_are_placed_on_the_frame_they_were_marked_on(tiny_bundle, quick):
    """On the newest frame they were 18 pixels off."""
    with Tracker(tiny_bundle).live() as live:
        live._pace.keeps_up = lambda: quick
        push(live, range(LATE + 2))
        # As a detector gives them: on frame 1, when frame 10 is the newest.
        ids = live.add(MARKED, stamp(1))
        update = live.push(shoot(LATE + 1), stamp(LATE + 1))
        assert update.ids.tolist() == ids.tolist()
        assert update.visible.sum() >= 38 and np.median(errors(update, LATE)) < 0.1
        update = push(live, range(LATE + 2, LATE + 6))
    assert update.visible.sum() >= 36 and np.median(errors(update, LATE + 4)) < 0.1
    assert errors(update, LATE + 4).max() < 2


def test_they_look_as_on_the_frame_they_were_marked_on(tiny_bundle):
    """Flow that slips on the way does not become the point's appearance."""
    with Tracker(tiny_bundle).live() as live:
        live._pace.keeps_up = lambda: True
        push(live, range(4))
        carry = live._recent.carry

        def slip(points, stamp, find_textureless):
            carried = carry(points, stamp, find_textureless)
            carried.places[:] += 1.5
            return carried

        live._recent.carry = slip
        live.add(MARKED, stamp(1))
        update = live.push(shoot(3), stamp(3))
        assert np.median(errors(update, 2)) < 0.1


def test_what_cannot_be_carried_is_invisible(bundle):
    with Tracker(bundle).live() as live:

        def covered(n):
            frame = shoot(n)
            if n >= 4:
                noise = np.random.default_rng(n).integers(0, 255, (HEIGHT, 300, 3), np.uint8)
                frame[:, 300:600] = noise
            return frame

        push(live, range(11), covered)
        # Covered, seen, and gone across the left border.
        ids = live.add([[450, 200], [120, 300], [5, 240]], stamp(0))
        update = live.push(covered(10), stamp(10))
        assert update.visible.tolist() == [False, True, False]
        update = push(live, range(11, 16), covered)
        assert (update.ids == ids).all() and not update.visible[[0, 2]].any()


def test_points_between_two_frames_move_to_the_nearer_one(bundle):
    """Its frame was lost on the way: half of an interval of ten frames is ten pixels."""
    with Tracker(bundle).live() as live:
        push(live, (0, 10, 20))
        live.add(MARKED, stamp(4))
        update = live.push(shoot(20), stamp(20))
    assert update.visible.sum() >= 36 and np.median(errors(update, 16)) < 0.5


def test_stamps_that_are_refused(bundle):
    with Tracker(bundle).live() as live:
        with pytest.raises(InputError, match="Push a frame first"):
            live.add(MARKED, stamp(0))
        push(live, (0, 16, 65, 75))
        # Frames of two seconds are kept.
        assert len(live.add(MARKED[:1], stamp(20))) == 1
        with pytest.raises(InputError, match=r"2\.17 s before the newest frame.*last 1\.97 s"):
            live.add(MARKED, stamp(9.9))
        with pytest.raises(InputError, match=r"0\.5 s ahead of the newest frame"):
            live.add(MARKED, stamp(90))
        with pytest.raises(InputError, match="ahead of the newest"):
            live.add(MARKED, float("nan"))
        with pytest.raises(InputError, match="not inside the frame"):
            live.add([[WIDTH, 10]], stamp(20))
        with pytest.raises(InputError, match="shape"):
            live.add([1, 2, 3], stamp(20))
        assert len(live.add(np.zeros((0, 2)), stamp(20))) == 0


def test_the_size_may_change_on_the_way(bundle):
    with Tracker(bundle).live() as live:
        push(live, range(3))
        for n in range(3, 7):
            live.push(shoot(n, (WIDTH // 2, HEIGHT // 2)), stamp(n))
        assert live.frame_size(stamp(1)) == (HEIGHT, WIDTH)
        assert live.frame_size() == (HEIGHT // 2, WIDTH // 2)
        live.add(MARKED, stamp(1))
        update = live.push(shoot(6, (WIDTH // 2, HEIGHT // 2)), stamp(6))
    truth = (MARKED - np.float32([SPEED * 5 / RATE, 0])) / 2
    error = np.linalg.norm(update.points - truth, axis=1)[update.visible]
    assert update.visible.sum() >= 34 and np.median(error) < 0.5


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (2160, 3840)])
def test_memory_of_recent_images_is_bounded(size):
    recent = RecentImages(LiveTracking(), None)
    image = np.zeros(size, np.uint8)
    for n in range(200):
        recent.add(image, n / 60)
    kept = [frame.image.nbytes for frame in recent._frames]
    assert sum(kept) == recent._bytes <= 64 * 1024 * 1024
    assert len(kept) >= 60 and kept[0] < 1_100_000


def test_a_point_found_late_is_carried_through_the_frames_since(tiny_bundle):
    """It was placed by one step of flow over 26 frames: up to 81 pixels off, and visible."""
    picture = draw_scene(np.random.default_rng(1), 480, 640, ()).render(0.0)

    def pan(n):
        return np.ascontiguousarray(picture[100:340, 20 + 3 * n : 340 + 3 * n])

    slow, first = SlowModel(tiny_bundle), np.float32([[130, 100], [150, 170], [250, 120]])
    with slow.live() as live:
        slow.let.release()
        push(live, (0,), pan)
        ids = live.add(first)
        live.restart(ids)
        slow.let.release()
        push(live, range(2, 29), pan)
        slow.let.release()
        await_description(live)
        update = push(live, (29,), pan)
        slow.let.release(100)
    assert update.visible.any()
    truth = first - np.float32([3 * 29, 0])
    np.testing.assert_allclose(update.points[update.visible], truth[update.visible], atol=1)
