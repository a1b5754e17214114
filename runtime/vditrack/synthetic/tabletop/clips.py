"""The tabletop benchmark: a robot's tabletop simulated and rendered by MuJoCo."""

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.point_sampling import pick_pixels
from vditrack.synthetic.tabletop.offscreen import load_mujoco, open_renderer
from vditrack.synthetic.tabletop.surface_truth import (
    BodyAnchors,
    Footage,
    anchor_pixels,
    track_anchors,
)
from vditrack.synthetic.tabletop.world import FIELD_OF_VIEW, STEPS, World, draw_world

if TYPE_CHECKING:
    from mujoco import MjData, MjModel, Renderer

COUNT = 8
"""Number of clips in the benchmark."""

_SIZE = 256
_FRAMES = 48
_PICKED = {0: 40, _FRAMES // 3: 12, _FRAMES * 2 // 3: 12}
"""Number of points picked, by the frame in which they are picked."""
_SHARE = 0.6
"""Share of the points on things and pusher."""
_SETTLING = 30
"""Frames simulated before the first, in which the things come to rest."""


def render_tabletop(seed: int) -> Iterator[AnnotatedClip]:
    """Simulate and render the clips of the benchmark, one at a time.

    A clip has 48 frames of 256 x 256 pixels at 30 Hz: four to eight things on a table, the first
    two of which look the same, a pusher that shoves them and a moving camera. It has the tracks of
    64 points, and masks in which the things are 1, 2, ... and the pusher has the last index. The
    same seed (0 or more) gives the same clips on one machine; versions of MuJoCo and of the
    renderer differ in a few grey levels and contacts.

    Raises:
        InputError: MuJoCo or a software renderer is missing.

    """
    for number in range(COUNT):
        # Each clip has its own random stream, independent of the other clips.
        rng = np.random.default_rng([seed, number])
        footage, instances = film_world(draw_world(rng))
        yield annotate(f"tabletop-{number:02}", footage, instances, rng)


def film_world(world: World) -> tuple[Footage, NDArray[np.uint8]]:
    """Simulate a world and render it.

    Returns:
        The footage, whose bodies are MuJoCo's geoms, and the mask index of each geom, uint8 [G]:
        0 for floor and table, then the things in their order, the pusher last.

    Raises:
        InputError: MuJoCo or a software renderer is missing.

    """
    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_string(world.mjcf, world.files)
    data = mujoco.MjData(model)
    for _ in range(_SETTLING):
        _advance(mujoco, model, data, world, 0.0)
    shots = []
    with open_renderer(model, _SIZE, _SIZE) as renderer:
        for share in np.linspace(0, 1, _FRAMES):
            _advance(mujoco, model, data, world, float(share))
            shots.append(_render_frame(renderer, data))
    # Body 0 is the static world, which is the background of the masks.
    bodies = model.geom_bodyid
    instances = np.unique(bodies, return_inverse=True)[1].astype(np.uint8)
    focal = _SIZE / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    return Footage(focal, *(np.stack(parts) for parts in zip(*shots, strict=True))), instances


def annotate(
    name: str, footage: Footage, instances: NDArray[np.uint8], rng: np.random.Generator
) -> AnnotatedClip:
    """Pick points in the first frame of ``footage`` and in two later ones, and track them."""
    masks = np.where(footage.bodies >= 0, instances[footage.bodies], 0).astype(np.uint8)
    anchors = []
    for time, count in _PICKED.items():
        labels = (footage.bodies[time] + 1).astype(np.uint8)
        positions = pick_pixels(rng, labels, masks[time] > 0, count, _SHARE)
        anchors.append(anchor_pixels(footage, time, positions))
    joined = BodyAnchors(
        np.concatenate([a.body for a in anchors]), np.concatenate([a.place for a in anchors])
    )
    points, visible = track_anchors(footage, joined)
    return AnnotatedClip(name, footage.frames, points, visible, masks)


def _advance(
    mujoco: ModuleType, model: "MjModel", data: "MjData", world: World, share: float
) -> None:
    """Simulate until the next frame, at ``share`` of the clip, while the pusher moves."""
    pusher, eye = (model.body(name).mocapid[0] for name in ("pusher", "eye"))
    before = data.mocap_pos[pusher].copy()
    after = world.pusher.at(share)
    for step in range(1, STEPS + 1):
        data.mocap_pos[pusher] = before + (after - before) * step / STEPS
        mujoco.mj_step(model, data)
    place, turn = world.camera.at(share)
    data.mocap_pos[eye] = place
    mujoco.mju_mat2Quat(data.mocap_quat[eye], turn.ravel())
    # mj_step leaves the poses of before the step; update them for rendering.
    mujoco.mj_forward(model, data)


def _render_frame(renderer: "Renderer", data: "MjData") -> tuple[NDArray[Any], ...]:
    """Render one frame, and return its part of each array of `Footage`, in order."""
    renderer.update_scene(data, "eye")
    frame = renderer.render()
    renderer.enable_depth_rendering()
    depth = renderer.render()
    renderer.disable_depth_rendering()
    renderer.enable_segmentation_rendering()
    # All visible objects of this world are geoms.
    geoms = renderer.render()[..., 0].astype(np.int16)
    renderer.disable_segmentation_rendering()
    return (
        frame,
        depth,
        geoms,
        data.geom_xpos.copy(),
        data.geom_xmat.reshape(-1, 3, 3).copy(),
        data.cam_xpos[0].copy(),
        data.cam_xmat[0].reshape(3, 3).copy(),
    )
