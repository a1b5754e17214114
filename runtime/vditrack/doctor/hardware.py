"""Detects hardware by files of the kernel."""

from pathlib import Path

_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI vendor NVIDIA, and PCI class of display controllers."""


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Return whether this machine has an NVIDIA GPU, with or without a driver."""
    if is_jetson(root) or any(root.glob("dev/nvidia[0-9]")):
        return True
    cards = root.glob("sys/bus/pci/devices/*")
    return any(
        read_text(card / "vendor") == _NVIDIA and read_text(card / "class").startswith(_DISPLAY)
        for card in cards
    )


def is_jetson(root: Path = Path("/")) -> bool:
    """Return whether this machine is a board with a Tegra."""
    return "nvidia,tegra" in read_text(root / "proc/device-tree/compatible")


def read_board_name(root: Path = Path("/")) -> str:
    """Return the name of the board, as in "NVIDIA Jetson AGX Orin Developer Kit"."""
    return read_text(root / "proc/device-tree/model")


def read_text(path: Path) -> str:
    """Return the content of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
