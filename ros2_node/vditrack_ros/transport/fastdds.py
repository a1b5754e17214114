"""The Fast DDS profile for large images, and what to do about lost images. Needs no ROS."""

from pathlib import Path

PROFILE = Path(__file__).with_name("fastdds.xml")
"""Gives two processes enough shared memory for large images."""
PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
"""The variable's name before Fast DDS 3, which is in Humble and Jazzy."""


def explain_losses(middleware: str, *, reliable: bool) -> str:
    """Return the likely cause of lost images, and the remedy.

    Args:
        middleware: rclpy's identifier of it.
        reliable: whether the subscription is reliable.

    """
    if "fastrtps" not in middleware:
        if reliable:
            return "Use image_transport compressed, or smaller images."
        return "Let the camera publish reliably, or use image_transport compressed."
    cause = (
        "By default Fast DDS shares 512 KiB of memory between two processes; a larger image (RGB "
        "of 640 x 480 has 900 KiB) is sent in fragments, and with best effort one lost fragment "
        "loses the image. "
    )
    remedy = (
        f"Start the camera's process with the environment variable {PROFILE_VARIABLE}={PROFILE} "
        f"({OLD_PROFILE_VARIABLE} on Humble and Jazzy)"
    )
    network = "; over a network, use image_transport compressed."
    if reliable:
        return f"{remedy}{network}"
    return f"{cause}{remedy}, or let it publish reliably{network}"
