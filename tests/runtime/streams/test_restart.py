"""The live stream after a jump of the clock: points that were asked for are found again."""

import numpy as np
import pytest

from doubles.slow_model import SlowModel
from vditrack import InputError, Tracker
from vditrack.synthetic.layers.scenes import draw_scene

HEIGHT, WIDTH = 240, 320
STEP = 3
"""Pixels by which the picture moves to the left from frame to frame."""
FIRST = np.float32(np.random.default_rng(1).uniform((60, 20), (WIDTH - 20, HEIGHT - 20), (20, 2)))


def pan(seed):
    """Return the function that gives the n-th frame of a camera that pans over a picture."""
    picture = draw_scene(np.random.default_rng(seed), 480, 640, ()).render(0.0)

    def shoot(n):
        left = 20 + STEP * n
        return np.ascontiguousarray(picture[100 : 100 + HEIGHT, left : left + WIDTH])

    return shoot


def run(live, shoot, start, first=0, frames=6):
    for n in range(frames):
        # Seconds apart, so that the model keeps pace whatever the machine does.
        update = live.push(shoot(first + n), start + 10.0 * n)
    return update


def track(live, shoot):
    """Ids of points that were asked for on frame 0, and tracked for some frames."""
    live.push(shoot(0), 5000.0)
    ids = live.add(FIRST)
    update = run(live, shoot, 5010.0, first=1)
    assert update.visible.all()
    return ids


@pytest.fixture
def live(tiny_bundle):
    with Tracker(tiny_bundle).live() as one:
        yield one


def test_kept_points_are_found_again_where_the_picture_is_the_same(live):
    """Before, all points were dropped."""
    shoot = pan(1)
    ids = track(live, shoot)
    others = live.add([[100, 100], [200, 50]])
    assert (live.restart(ids) == ids).all()
    # An hour back, and at another place of the same picture.
    update = live.push(shoot(2), 0.0)
    assert not update.visible.any() and (update.confidence < 0.5).all()
    update = run(live, shoot, 10.0, first=3, frames=2)
    assert (update.ids == ids).all() and (update.age == 9).all()
    assert update.visible.sum() >= 18
    truth = FIRST - np.float32([4 * STEP, 0])
    error = np.linalg.norm(update.points - truth, axis=1)[update.visible]
    assert np.median(error) < 0.1 and error.max() < 2
    assert (update.seconds_since_model == 0).all()
    # Those not kept are gone, and their ids are not used again.
    assert live.add([[50, 50]])[0] > others.max()


def test_points_with_similar_surroundings_are_found_again(live):
    """Before, 23 of 40 points on a grid, with any number of frames."""
    shoot = pan(0)
    live.push(shoot(0), 0.0)
    x, y = np.meshgrid(np.arange(24, 320, 40), np.arange(24, 240, 48))
    ids = live.add(np.stack([x, y], axis=-1).reshape(-1, 2))
    run(live, shoot, 10.0, first=1, frames=3)
    live.restart(ids)
    assert run(live, shoot, 0.0, first=3, frames=2).visible.sum() >= 36


def test_in_another_picture_they_stay_invisible(live):
    """With the limits for points that are lost in a stream, 2 to 3 of 20 were found in some."""
    ids = track(live, pan(3))
    for other in (4, 5, 6):
        live.restart(ids)
        assert not run(live, pan(other), 0.0).visible.any()
    # They are not forgotten.
    live.restart(ids)
    assert run(live, pan(3), 0.0, frames=3).visible.sum() >= 18


def test_points_without_texture_stay_invisible(live):
    """Nothing but the camera's motion says where they are, and that is not known over a jump."""

    def flat(n):
        frame = pan(1)(n).copy()
        frame[60:180, 80:240] = 128
        return frame

    live.push(flat(0), 0.0)
    ids = live.add([[160, 120]])
    assert live._tracker.textureless.all()
    live.restart(ids)
    assert not run(live, flat, 0.0).visible.any()


@pytest.mark.parametrize("busy", [False, True])
def test_points_that_the_model_has_not_described_are_kept_too(tiny_bundle, busy):
    """Before, they were dropped without a word: 0 of 20 were kept."""
    slow, shoot = SlowModel(tiny_bundle), pan(1)
    with slow.live() as live:
        slow.let.release()
        live.push(shoot(0), 0.0)
        if busy:
            # The model describes this frame while the next one comes.
            live.push(shoot(0), 1.0)
        live.push(shoot(1), 2.0)
        assert live._job is not None and live._job.frame.stamp == 2.0 - busy
        ids = live.add(FIRST)
        slow.let.release(100)
        assert live.restart(ids).tolist() == ids.tolist()
        # Described without need, it would take twice as long.
        assert slow.runs == 2 + busy
        live._pace.keeps_up = lambda: True
        update = run(live, shoot, 100.0, first=3, frames=3)
    # The other four have no texture.
    assert update.ids.tolist() == ids.tolist() and update.visible.sum() == 16
    truth = FIRST - np.float32([4 * STEP, 0])
    error = np.linalg.norm(update.points - truth, axis=1)[update.visible]
    assert np.median(error) < 0.1 and error.max() < 2


def test_points_keep_their_ids_if_the_model_fails(tiny_bundle):
    slow, shoot = SlowModel(tiny_bundle, fails=[2, 3]), pan(1)
    slow.let.release(100)
    with slow.live() as live:
        live.push(shoot(0), 0.0)
        live.push(shoot(1), 1.0)
        ids = live.add(FIRST)
        assert live.restart(ids).tolist() == ids.tolist()
        live._pace.keeps_up = lambda: True
        assert not run(live, shoot, 100.0, frames=3).visible.any()


def test_what_restart_is_given_and_forgets(live):
    shoot = pan(1)
    ids = track(live, shoot)
    with pytest.raises(InputError, match="no point with id 99"):
        live.restart([99])
    assert live.restart(ids[:2]).tolist() == ids[:2].tolist()
    assert live.described_rate is None
    with pytest.raises(InputError, match="Push a frame first"):
        live.add([[10, 10]])
    # Twice in a row, before any frame; then none.
    assert len(live.restart(ids[:2])) == 2
    assert len(live.restart([])) == 0
    assert len(run(live, shoot, 0.0).ids) == 0
