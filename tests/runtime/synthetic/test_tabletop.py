"""The tabletop: its truth against closed form, rays and the pictures themselves."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from doubles.interpolation import sample_bilinearly
from vditrack.errors import InputError
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.tabletop import clips, offscreen
from vditrack.synthetic.tabletop.clips import COUNT, annotate, film_world, render_tabletop
from vditrack.synthetic.tabletop.motion import Orbit, Push
from vditrack.synthetic.tabletop.surface_truth import (
    BodyAnchors,
    Footage,
    anchor_pixels,
    track_anchors,
)
from vditrack.synthetic.tabletop.world import World, draw_world

Floats = NDArray[np.float64]

SEED = 3
PICKED = np.repeat([0, 16, 32], [40, 12, 12])
UPRIGHT = np.eye(3)


@pytest.fixture(scope="module")
def mujoco() -> ModuleType:
    try:
        return offscreen.load_mujoco()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def drawing(mujoco: ModuleType) -> ModuleType:
    """MuJoCo where it can draw."""
    try:
        offscreen.open_renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except InputError as error:
        pytest.skip(str(error))
    return mujoco


@pytest.fixture(scope="module")
def world() -> World:
    return draw_world(np.random.default_rng([SEED, 0]))


@pytest.fixture(scope="module")
def filmed(world: World, drawing: ModuleType) -> tuple[Footage, NDArray[np.uint8]]:
    return film_world(world)


@pytest.fixture(scope="module")
def clip(filmed: tuple[Footage, NDArray[np.uint8]]) -> AnnotatedClip:
    return annotate("tabletop", *filmed, np.random.default_rng(0))


def from_above(
    times: int, *, camera: Floats, turn: Floats = UPRIGHT, bodies: int = 1, size: int = 64
) -> Footage:
    """A camera at ``camera [T, 3]`` that looks down on the plane z = 0, which is body 0.

    ``turn [T, 3, 3]`` is that of the plane about the origin.
    """
    return Footage(
        focal=100.0,
        frames=np.zeros((times, size, size, 3), np.uint8),
        depth=np.broadcast_to(camera[:, 2, None, None], (times, size, size)).astype(np.float32),
        bodies=np.zeros((times, size, size), np.int16),
        body_place=np.zeros((times, bodies, 3)),
        body_turn=np.broadcast_to(turn, (times, bodies, 3, 3)),
        camera_place=camera,
        camera_turn=np.broadcast_to(UPRIGHT, (times, 3, 3)),
    )


def test_a_pixel_is_lifted_to_where_its_ray_meets_the_plane():
    footage = from_above(1, camera=np.array([[0.1, 0.2, 2.0]]))
    anchors = anchor_pixels(footage, 0, np.array([[42.5, 30.5]]))
    # 10.5 pixels right of the middle and 1.5 above it, 2 m away at 100 pixels: 0.21 m and 0.03 m.
    np.testing.assert_allclose(anchors.place, [[0.31, 0.23, 0.0]], atol=1e-7)
    points, visible = track_anchors(footage, anchors)
    np.testing.assert_allclose(points, [[[42.5, 30.5]]], atol=1e-4)
    assert visible.all()


def test_a_camera_that_moves_and_rises_sees_points_move_by_the_closed_form():
    camera = np.array([[0, 0, 1.0], [0.02, -0.05, 1.0], [0, 0, 2.0], [0.5, 0, 1.0]])
    footage = from_above(4, camera=camera)
    points, visible = track_anchors(
        footage, anchor_pixels(footage, 0, np.array([[50.5, 20.5], [3.5, 60.5]]))
    )
    wanted = [
        [[50.5, 20.5], [48.5, 15.5], [41.25, 26.25], [0.5, 20.5]],
        [[3.5, 60.5], [1.5, 55.5], [17.75, 46.25], [-46.5, 60.5]],
    ]
    np.testing.assert_allclose(points, wanted, atol=1e-4)
    np.testing.assert_array_equal(visible, [[True] * 4, [True] * 3 + [False]])


def test_points_turn_with_their_body():
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    camera = np.array([[0, 0, 1.0]] * 3)
    footage = from_above(3, camera=camera, turn=np.stack([UPRIGHT, quarter, quarter])[:, None])
    points, _ = track_anchors(footage, anchor_pixels(footage, 0, np.array([[52.5, 32.5]])))
    # Right of the middle by 20.5 and below by 0.5; a quarter turn leftwards: above by 20.5.
    np.testing.assert_allclose(points[0], [[52.5, 32.5], [32.5, 11.5], [32.5, 11.5]], atol=1e-4)


def test_a_point_behind_the_camera_is_unseen():
    camera = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    footage = from_above(2, camera=camera)
    points, visible = track_anchors(footage, anchor_pixels(footage, 0, np.array([[30.5, 30.5]])))
    np.testing.assert_array_equal(visible, [[True, False]])
    assert np.isfinite(points).all()


def test_points_are_hidden_exactly_where_something_nearer_is_drawn():
    footage = from_above(8, camera=np.array([[0, 0, 1.0]] * 8), bodies=2)
    for time in range(1, 8):
        columns = slice(6 * time, 6 * time + 12)
        footage.depth[time, 10:40, columns] = 0.6
        footage.bodies[time, 10:40, columns] = 1
    x, y = np.meshgrid(np.arange(2, 62) + 0.5, np.arange(2, 62) + 0.5)
    positions = np.stack([x.ravel(), y.ravel()], axis=1)
    _, visible = track_anchors(footage, anchor_pixels(footage, 0, positions))
    first = 6 * np.arange(8)
    across = (positions[:, :1] > first) & (positions[:, :1] < first + 12)
    down = (positions[:, 1:] > 10) & (positions[:, 1:] < 40)
    covered = across & down & (np.arange(8) > 0)
    np.testing.assert_array_equal(visible, ~covered)


def test_a_steep_surface_is_seen_and_what_lies_behind_it_is_not():
    """A slope of 1 in 1 away from the camera, which moves by fractions of a pixel."""
    camera = np.zeros((9, 3))
    camera[:, 2] = 1.0
    camera[:, 0] = np.linspace(0, 0.02, 9)
    footage = from_above(9, camera=camera)
    # The plane z = x, seen from (c, 0, 1) along (a, 0, -1): c + s a = 1 - s.
    a = (np.arange(64) + 0.5 - 32) / 100
    depth = (1 - camera[:, :1]) / (1 + a)
    footage.depth[:] = depth[:, None, :]
    x, y = np.meshgrid(np.arange(10, 60) + 0.5, np.arange(4, 60, 5) + 0.5)
    anchors = anchor_pixels(footage, 0, np.stack([x.ravel(), y.ravel()], axis=1))
    np.testing.assert_allclose(anchors.place[:, 2], anchors.place[:, 0], atol=1e-6)
    assert track_anchors(footage, anchors)[1].all()
    # A point of the same body on the same ray, but two centimetres further away.
    behind = BodyAnchors(anchors.body, anchors.place * 1.02 - [0, 0, 0.02])
    assert not track_anchors(footage, behind)[1][:, 0].any()


TILE = """<mujoco>
  <visual><global offwidth="64" offheight="64"/></visual>
  <statistic extent="1"/>
  <worldbody>
    <geom type="plane" size="2 2 1"/>
    <body name="tile" mocap="true"><geom type="box" size="0.05 0.03 0.01"/></body>
    <body name="eye" mocap="true" pos="0 0 1"><camera name="eye" fovy="45"/></body>
  </worldbody>
</mujoco>"""


def test_the_renderer_draws_where_the_projection_says(drawing):
    """A tile under a camera that looks straight down: its depth and its centre."""
    model = drawing.MjModel.from_xml_string(TILE)
    data = drawing.MjData(model)
    focal, shifts = 32 / np.tan(np.radians(22.5)), []
    with offscreen.open_renderer(model, 64, 64) as renderer:
        for x, y in np.random.default_rng(0).uniform(-0.2, 0.2, (20, 2)):
            data.mocap_pos[0] = x, y, 0.2
            drawing.mj_forward(model, data)
            renderer.update_scene(data, "eye")
            renderer.enable_segmentation_rendering()
            drawn = renderer.render()[..., 0] == 1
            renderer.disable_segmentation_rendering()
            renderer.enable_depth_rendering()
            depth = renderer.render()
            renderer.disable_depth_rendering()
            # The top of the tile is 0.79 m below the camera; its sides are seen beyond it.
            top = drawn & (np.abs(depth - 0.79) < 1e-4)
            rows, columns = np.nonzero(top)
            centre = columns.mean() + 0.5, rows.mean() + 0.5
            wanted = 32 + focal * x / 0.79, 32 - focal * y / 0.79
            shifts.append(np.subtract(centre, wanted))
            np.testing.assert_allclose(np.median(depth[~drawn]), 1.0, atol=1e-5)
    assert np.abs(shifts).max() <= 0.5
    np.testing.assert_allclose(np.mean(shifts, axis=0), 0, atol=0.15)


def ray_gaps(mujoco: ModuleType, world: World, footage: Footage, anchors: BodyAnchors) -> Floats:
    """How far short of each point a ray from the camera is stopped, in metres [N, T]."""
    model = mujoco.MjModel.from_xml_string(world.mjcf, world.files)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    hit = np.zeros(1, np.int32)
    gaps = np.zeros((len(anchors.body), len(footage.frames)))
    for time in range(len(footage.frames)):
        data.geom_xpos[:] = footage.body_place[time]
        data.geom_xmat[:] = footage.body_turn[time].reshape(-1, 9)
        eye = footage.camera_place[time]
        for n, (body, place) in enumerate(zip(anchors.body, anchors.place, strict=True)):
            at = footage.body_place[time, body] + footage.body_turn[time, body] @ place
            length = np.linalg.norm(at - eye)
            ray = (at - eye) / length
            gaps[n, time] = length - mujoco.mj_ray(model, data, eye, ray, None, 1, -1, hit)
    return gaps


def test_what_is_visible_is_what_rays_reach(drawing, world, filmed):
    footage, _ = filmed
    rng = np.random.default_rng(1)
    parts = [anchor_pixels(footage, t, rng.integers(2, 254, (60, 2)) + 0.5) for t in (0, 24, 47)]
    anchors = BodyAnchors(*(np.concatenate([getattr(a, k) for a in parts]) for k in vars(parts[0])))
    points, visible = track_anchors(footage, anchors)
    inside = ((points >= 0) & (points < 256)).all(axis=-1)
    gaps = ray_gaps(drawing, world, footage, anchors)
    # Round things are drawn with flat faces, up to a millimetre inside of what a ray meets.
    picked = np.repeat([0, 24, 47], 60)
    assert np.abs(gaps[np.arange(180), picked]).max() < 0.0015
    reached = inside & (gaps < 0.002)
    # The rest lies within a pixel of an edge.
    assert (reached == visible)[inside].mean() > 0.985
    assert (inside & ~visible).mean() > 0.02


def test_the_pictures_keep_a_points_colour_along_its_track(clip):
    """Light and shade change with the view, so only by comparison with a place beside it."""
    margin = ((clip.points > 6) & (clip.points < 250)).all(axis=-1)
    errors = {0.0: [], 1.0: [], 3.0: []}
    for step in range(0, 48, 3):
        at = clip.visible[:, step] & margin[:, step] & margin[np.arange(64), PICKED]
        at &= step != PICKED
        started = zip(PICKED[at], clip.points[at, PICKED[at]], strict=True)
        picked = [sample_bilinearly(clip.frames[start], point[None])[0] for start, point in started]
        for shift, found in errors.items():
            seen = sample_bilinearly(clip.frames[step], clip.points[at, step] + shift)
            found.extend(np.abs(seen - picked).mean(axis=1))
    exact, near, beside = (np.median(found) for found in errors.values())
    assert exact < 4 and near > 2 * exact and beside > 4 * exact


def test_a_clip_has_the_shapes_it_promises(clip, filmed):
    assert clip.frames.dtype == np.uint8 and clip.frames.shape == (48, 256, 256, 3)
    assert clip.points.dtype == np.float32 and clip.points.shape == (64, 48, 2)
    assert clip.visible.dtype == np.bool_ and clip.visible.shape == (64, 48)
    assert clip.masks.dtype == np.uint8 and clip.masks.shape == (48, 256, 256)
    assert clip.visible[np.arange(64), PICKED].all()
    inside = ((clip.points >= 0) & (clip.points < clip.size)).all(axis=-1)
    assert inside[clip.visible].all()
    # Floor and table are the background; what can move is 1, 2, ..., the pusher last.
    _, instances = filmed
    assert instances[:2].tolist() == [0, 0] and (np.diff(instances) >= 0).all()
    assert 5 <= instances.max() <= 9 and (instances == instances.max()).sum() == 6


def test_a_visible_point_lies_on_its_mask(clip):
    columns, rows = np.floor(clip.points).astype(int).transpose(2, 0, 1)
    index = np.arange(64)
    mine = clip.masks[PICKED, rows[index, PICKED], columns[index, PICKED]]
    n, t = np.nonzero(clip.visible)
    assert (clip.masks[t, rows[n, t], columns[n, t]] == mine[n]).mean() > 0.98
    edge = np.pad(clip.masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    beside = [edge[t, rows[n, t] + i, columns[n, t] + j] == mine[n] for i, j in np.ndindex(3, 3)]
    assert np.any(beside, axis=0).all()


@pytest.fixture(scope="module")
def filmed_again(drawing: ModuleType) -> tuple[AnnotatedClip, Footage, NDArray[np.uint8]]:
    """The first clip of the benchmark, and what it was made from."""
    films = []

    def film(world: World) -> tuple[Footage, NDArray[np.uint8]]:
        films.append(film_world(world))
        return films[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "film_world", film)
        first = next(render_tabletop(SEED))
    [(footage, instances)] = films
    return first, footage, instances


@pytest.mark.slow
def test_the_same_world_is_filmed_the_same_twice(filmed, filmed_again):
    _, footage, instances = filmed_again
    for name, value in vars(filmed[0]).items():
        np.testing.assert_array_equal(getattr(footage, name), value)
    np.testing.assert_array_equal(instances, filmed[1])


@pytest.mark.slow
def test_the_first_clip_comes_alone_and_from_its_seed(clip, filmed_again):
    one = filmed_again[0]
    assert one.name == "tabletop-00" and COUNT > 1
    np.testing.assert_array_equal(one.frames, clip.frames)
    other = draw_world(np.random.default_rng([SEED, 1]))
    assert other.mjcf != draw_world(np.random.default_rng([SEED, 0])).mjcf


@pytest.mark.parametrize("seed", range(4))
def test_things_rest_or_are_pushed_and_nothing_flies(mujoco, seed):
    world = draw_world(np.random.default_rng([seed, 5]))
    model = mujoco.MjModel.from_xml_string(world.mjcf, world.files)
    data = mujoco.MjData(model)
    things = [b for b in range(model.nbody) if model.body(b).name.startswith("thing")]
    assert 4 <= len(things) <= 8
    places = []
    for step in range(480 * 2):
        share = np.clip((step - 240) / 720, 0, 1)
        data.mocap_pos[model.body("pusher").mocapid[0]] = world.pusher.at(share)
        mujoco.mj_step(model, data)
        places.append(data.xpos[things].copy())
    # From the end of settling, half a second in.
    places = np.array(places[240:])
    speeds = np.linalg.norm(np.diff(places[::16], axis=0), axis=-1) * 30
    assert speeds[:3].max() < 0.02 and speeds.max() < 1.0
    assert places[..., 2].min() > 0.01 and places[..., 2].max() < 0.08
    moved = np.linalg.norm(places[-1] - places[0], axis=-1)
    assert 0.05 < moved.max() < 0.5 and np.abs(places[..., :2]).max() < 0.5


def test_the_first_two_things_look_the_same(mujoco, world):
    model = mujoco.MjModel.from_xml_string(world.mjcf, world.files)
    one, two, other = (model.geom(f"thing-{number}") for number in range(3))
    np.testing.assert_array_equal(one.size, two.size)
    assert one.type == two.type and one.matid == two.matid != other.matid


def test_the_pusher_starts_and_stops_gently():
    push = Push(np.array([0.3, 0.0]), np.array([0.0, 0.4]), height=0.04)
    np.testing.assert_allclose(push.at(0.0), [0.3, 0, 0.04])
    np.testing.assert_allclose(push.at(0.5), [0.15, 0.2, 0.04])
    np.testing.assert_allclose(push.at(1.0), [0, 0.4, 0.04])
    np.testing.assert_allclose(push.heading, np.arctan2(0.4, -0.3))
    assert np.linalg.norm(push.at(0.01) - push.at(0.0)) < 0.001


def test_the_camera_looks_at_the_middle_of_the_table_and_stays_level():
    sway = np.array([[0.2, 3.0, 0.5], [0.1, 2.0, 1.0], [0.05, 4.0, 0.0]])
    orbit = Orbit(azimuth=0.7, elevation=0.8, distance=0.75, sway=sway)
    for share in (0.0, 0.3, 1.0):
        place, turn = orbit.at(share)
        np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) > 0 and turn[2, 0] == 0 and turn[2, 1] > 0
        away = 0.75 + 0.05 * np.sin(4 * share)
        np.testing.assert_allclose(turn.T @ -place, [0, 0, -away], atol=1e-12)
        np.testing.assert_allclose(place[2], away * np.sin(0.8 + 0.1 * np.sin(2 * share + 1)))


def test_a_machine_without_mujoco_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(InputError, match=r"\[eval\].*libosmesa6") as caught:
        next(render_tabletop(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["nonsense", "disable"])
def test_a_backend_that_draws_nothing_is_one_line(backend, monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.setenv("MUJOCO_GL", backend)
    code = (
        "from vditrack.errors import InputError\n"
        "from vditrack.synthetic.tabletop.clips import render_tabletop\n"
        "try:\n    next(render_tabletop(0))\n"
        "except InputError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1 and "libosmesa6" in done.stdout
