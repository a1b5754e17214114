"""Draws a random table with things, a pusher and a camera, and writes it as MJCF.

Lengths are in metres. The table's top is the plane z = 0, its centre the origin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import cv2
import numpy as np

from vditrack.arrays import Doubles
from vditrack.synthetic.layers.textures import add_grain, draw_pattern
from vditrack.synthetic.tabletop.motion import Orbit, Push

Element = ElementTree.Element
Value = str | float | Sequence[float] | Doubles

FIELD_OF_VIEW = 45.0
"""Vertical field of view of the camera, in degrees."""
STEPS = 16
"""Simulation steps per frame."""

_RATE = 30.0
"""Frames per second."""
_CELL = 0.125
"""Side of the cells in which things are placed, in metres."""
_PADDLE = (0.008, 0.05, 0.035)
"""Half sizes of the pusher's paddle, in metres."""
_FACE = 96
"""Side of a face of a cube texture, in pixels."""


@dataclass(frozen=True)
class World:
    """A MuJoCo scene, and the motions of pusher and camera, which are not simulated."""

    mjcf: str
    """The scene as MJCF."""
    files: dict[str, bytes]
    """Texture files that the MJCF refers to, as PNG, by name."""
    pusher: Push
    """Motion of the pusher."""
    camera: Orbit
    """Motion of the camera."""


def draw_world(rng: np.random.Generator) -> World:
    """Draw a table with four to eight things, the first two of which look the same."""
    root = _make_settings()
    files: dict[str, bytes] = {}
    asset, world = ElementTree.SubElement(root, "asset"), ElementTree.SubElement(root, "worldbody")
    _add_room(rng, world, asset, files)
    places = _draw_places(rng, int(rng.integers(4, 9)))
    things = [_draw_shape(rng) for _ in places]
    things[1] = things[0]
    for number, (place, thing) in enumerate(zip(places, things, strict=True)):
        look = "thing-0" if number == 1 else f"thing-{number}"
        if number != 1:
            _add_texture(rng, asset, files, look)
        _add_thing(rng, world, f"thing-{number}", look, place, thing)
    _add_texture(rng, asset, files, "pusher")
    push = _draw_push(rng, places[int(rng.integers(len(places)))])
    _add_pusher(world, push)
    eye = _add_element(world, "body", name="eye", mocap="true")
    _add_element(eye, "camera", name="eye", fovy=FIELD_OF_VIEW)
    return World(ElementTree.tostring(root, "unicode"), files, push, _draw_orbit(rng))


def _make_settings() -> Element:
    root = ElementTree.Element("mujoco")
    _add_element(root, "option", timestep=1 / (_RATE * STEPS), integrator="implicitfast")
    visual = _add_element(root, "visual")
    _add_element(visual, "global", offwidth=256, offheight=256)
    _add_element(visual, "quality", shadowsize=1024)
    _add_element(visual, "map", znear=0.05, zfar=20)
    _add_element(visual, "headlight", ambient=(0.35,) * 3, diffuse=(0.3,) * 3, specular=(0,) * 3)
    # MuJoCo reads znear and zfar in units of the extent.
    _add_element(root, "statistic", extent=1, center=(0, 0, 0))
    return root


def _add_room(
    rng: np.random.Generator, world: Element, asset: Element, files: dict[str, bytes]
) -> None:
    _add_texture(rng, asset, files, "floor", repeat=8)
    _add_texture(rng, asset, files, "table", repeat=1)
    lean = rng.uniform(-0.5, 0.5, 2)
    _add_element(world, "light", directional="true", dir=(*lean, -1), diffuse=(0.5,) * 3)
    # The table is a plane: on a box, a cylinder does not stand still in every version of MuJoCo.
    for name, size, height in (("floor", (9, 9, 1), -0.7), ("table", (0.6, 0.5, 1), 0)):
        place = {"size": size, "pos": (0, 0, height)}
        _add_element(world, "geom", name=name, type="plane", material=name, **place)


def _add_texture(
    rng: np.random.Generator,
    asset: Element,
    files: dict[str, bytes],
    name: str,
    repeat: int | None = None,
) -> None:
    """Draw a texture that repeats on a plane, or a cube texture with a picture per face."""
    height, width = (6 * _FACE, _FACE) if repeat is None else (768, 768)
    picture = add_grain(rng, draw_pattern(rng, height, width), strength=40)
    files[f"{name}.png"] = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    cube = {"type": "cube", "gridsize": "6 1", "gridlayout": "RLUDFB"}
    layout = cube if repeat is None else {"type": "2d"}
    _add_element(asset, "texture", name=name, file=f"{name}.png", **layout)
    repeats = (repeat or 1,) * 2
    _add_element(asset, "material", name=name, texture=name, specular=0.1, texrepeat=repeats)


def _draw_places(rng: np.random.Generator, count: int) -> Doubles:
    """Draw positions, [count, 2], in cells that are large enough for every thing."""
    cells = np.array([(i - 1.5, j - 1.0) for i in range(4) for j in range(3)]) * _CELL
    return rng.permutation(cells)[:count] + rng.uniform(-0.01, 0.01, (count, 2))


@dataclass(frozen=True)
class _Thing:
    kind: str
    size: tuple[float, ...]
    rest: float
    """Height of its centre above the table."""
    lies: bool = False


def _draw_shape(rng: np.random.Generator) -> _Thing:
    radius = rng.uniform(0.025, 0.042)
    match int(rng.integers(4)):
        case 0:
            half = rng.uniform((0.022, 0.022, 0.02), (0.036, 0.036, 0.05))
            return _Thing("box", tuple(half), half[2])
        case 1:
            half_height = rng.uniform(0.02, 0.045)
            return _Thing("cylinder", (radius, half_height), half_height)
        case 2:
            return _Thing(
                "capsule", (0.7 * radius, rng.uniform(0.015, 0.03)), 0.7 * radius, lies=True
            )
        case _:
            return _Thing("sphere", (radius,), radius)


def _add_thing(
    rng: np.random.Generator, world: Element, name: str, look: str, place: Doubles, thing: _Thing
) -> None:
    yaw = rng.uniform(0, 360)
    body = _add_element(
        world,
        "body",
        name=name,
        # A millimetre above the table; it settles before the first frame.
        pos=(*place, thing.rest + 0.001),
        euler=(90, yaw, 0) if thing.lies else (0, 0, yaw),
    )
    _add_element(body, "freejoint")
    _add_element(
        body,
        "geom",
        name=name,
        type=thing.kind,
        size=thing.size,
        material=look,
        density=400,
        condim=6,
        friction=(0.7, 0.01, 0.003),
    )


def _draw_push(rng: np.random.Generator, target: Doubles) -> Push:
    """Draw a push from the table's edge nearest to ``target`` towards the centre."""
    edge = np.array([0.36, 0.3])
    axis = int(np.argmin(edge - np.abs(target)))
    start = target + rng.uniform(-0.06, 0.06, 2)
    start[axis] = np.copysign(edge[axis], target[axis])
    ahead = (target - start) / np.linalg.norm(target - start)
    # The paddle glides just above the table.
    return Push(start, target + rng.uniform(0.1, 0.2) * ahead, _PADDLE[2] + 0.004)


def _add_pusher(world: Element, push: Push) -> None:
    """Add a paddle on an arm that comes down from above."""
    yaw = float(np.degrees(push.heading))
    body = _add_element(
        world, "body", name="pusher", mocap="true", pos=push.at(0.0), euler=(0, 0, yaw)
    )
    _add_element(body, "geom", name="paddle", type="box", size=_PADDLE, material="pusher")
    # Short rotated pieces, because the texture of one long piece would be stretched.
    for number in range(5):
        _add_element(
            body,
            "geom",
            name=f"arm-{number}",
            type="cylinder",
            size=(0.02, 0.04),
            pos=(0, 0, 0.075 + 0.08 * number),
            euler=(0, 0, 70 * number),
            material="pusher",
        )


def _draw_orbit(rng: np.random.Generator) -> Orbit:
    extent = np.array([0.25, 0.08, 0.06]) * rng.uniform(0.5, 1.0, 3)
    sway = np.stack([extent, rng.uniform(2, 6, 3), rng.uniform(0, 2 * np.pi, 3)], axis=1)
    return Orbit(
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(0.7, 1.0),
        distance=rng.uniform(0.68, 0.8),
        sway=sway,
    )


def _add_element(parent: Element, tag: str, **attributes: Value) -> Element:
    """Add an XML element; numbers and sequences of numbers are formatted as MJCF requires."""
    child = ElementTree.SubElement(parent, tag)
    for name, value in attributes.items():
        text = value if isinstance(value, str) else " ".join(map(repr, np.ravel(value).tolist()))
        child.set(name, text)
    return child
