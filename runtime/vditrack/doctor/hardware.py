"""What hardware is here, by the files of the kernel alone."""

from pathlib import Path

_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI vendor, and class of display controllers."""


def nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA GPU is here, with a driver that works or without one."""
    if is_jetson(root) or any(root.glob("dev/nvidia[0-9]")):
        return True
    cards = root.glob("sys/bus/pci/devices/*")
    return any(
        text(card / "vendor") == _NVIDIA and text(card / "class").startswith(_DISPLAY)
        for card in cards
    )


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a board with a Tegra on it."""
    return "nvidia,tegra" in text(root / "proc/device-tree/compatible")


def board(root: Path = Path("/")) -> str:
    """Name of the board, as in "NVIDIA Jetson AGX Orin Developer Kit"."""
    return text(root / "proc/device-tree/model")


def text(path: Path) -> str:
    """Content of a file; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
