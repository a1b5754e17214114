"""Carries points through frames that the model has no time for, by optical flow alone."""

import numpy as np

from vditrack.arrays import Bools, Floats, Grey
from vditrack.bundle.configuration import CameraMotion, LiveTracking, OpticalFlow
from vditrack.points.camera_motion import STILL, estimate_motion
from vditrack.points.optical_flow import is_consistent, resize_grey, track_forward_backward
from vditrack.points.pyramid import Pyramid


def size_ratio(before: Grey, after: Grey) -> Floats:
    """Return the pixels (x, y) of a frame in one pixel of the frame before."""
    (height, width), (height_before, width_before) = after.shape, before.shape
    return np.array([width / width_before, height / height_before], np.float32)


def carry_points(
    before: Grey,
    image: Grey,
    places: Floats,
    textureless: Bools,
    settings: LiveTracking,
    camera: CameraMotion | None,
) -> tuple[Floats, Bools]:
    """Carry points into the next frame.

    Points without texture of their own go where the camera's motion leads. Any other goes where
    optical flow leads, unless the camera's motion leads it across the border: flow sticks there.

    Args:
        before: grey levels of the frame before, of any size.
        image: grey levels of the frame.
        places: [N, 2] (x, y) of the points before, in pixels of the frame; N is at least 1.
        textureless: [N] which points have too little texture to be followed by flow.
        settings: of bridging.
        camera: of the camera's motion; None to use none.

    Returns:
        Positions [N, 2], and which of them [N] to believe.

    """
    source, target = Pyramid(resize_grey(before, image.shape)), Pyramid(image)
    flow = settings.optical_flow
    carried, held = follow(source.level(0), image, places, places, flow, settings)
    motion = STILL
    if camera is not None:
        motion = estimate_motion(source, target, camera, settings.correction_flow)
    with_camera = np.asarray(places + motion.step(places), np.float32)
    carried = np.where(textureless[:, None], with_camera, carried)
    held = np.where(textureless, motion.known, held)
    return carried, held & target.contains(carried) & target.contains(with_camera)


def follow(
    before: Grey,
    image: Grey,
    points: Floats,
    guess: Floats,
    flow: OpticalFlow,
    settings: LiveTracking,
) -> tuple[Floats, Bools]:
    """Track points [N, 2] by optical flow; return positions, and which of them [N] to believe."""
    tracked, error = track_forward_backward(before, image, points, guess, flow)
    return tracked, is_consistent(error, image.shape, settings.max_flow_error)
