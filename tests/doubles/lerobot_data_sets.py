"""LeRobot data sets, written and loaded by LeRobot itself."""

import os
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
_FOLDER = Path(sys.prefix) / "lerobot"
"""Where LeRobot and what it needs are installed: transformers would import its torchvision."""
CAMERAS = ("observation.images.front", "observation.images.wrist")
SIZE = (96, 128)
FPS = 10


@cache
def import_lerobot(name: str) -> ModuleType:
    """Import a module of LeRobot, which is not on the path of other tests."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    # torchvision's compiled operators are of another torch. LeRobot calls none, but an import
    # declares the meaning of one, which has to exist.
    if not hasattr(torch.ops.torchvision, "nms"):
        _LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.path.append(str(_FOLDER))
    try:
        module = import_module(f"lerobot.{name}")
    finally:
        sys.path.remove(str(_FOLDER))
    # torchvision sends messages of FFmpeg to Python, whose threads wait for each other when a
    # decoder is closed in the one thread that another decodes for.
    av.logging.set_level(None)
    return module


def move(camera: int, episode: int, t: np.ndarray) -> np.ndarray:
    """The motion of all points of a camera's frames, [T, 2] pixels (x, y), from frame 0 on."""
    speed = np.array([(2.0, 0.5), (-1.0, 1.5)][camera])
    return t[:, None] * speed * (1 + 0.25 * episode)


def draw_frames(camera: int, episode: int, count: int, size=SIZE) -> np.ndarray:
    """Frames uint8 [count, H, W, 3] of a fine texture that moves as `move` says.

    LeRobot compresses strongly (CRF 30), which blurs a smoother one.
    """
    height, width = size
    rng = np.random.default_rng([camera, episode])
    waves = rng.uniform(-0.8, 0.8, (40, 2))
    phases = rng.uniform(0, 6.28, (40, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    frames = []
    for dx, dy in move(camera, episode, np.arange(count)):
        angles = (x - dx)[..., None] * waves[:, 0] + (y - dy)[..., None] * waves[:, 1]
        light = np.sin(angles[..., None] + phases).sum(axis=2)
        frames.append(np.clip(128 + 20 * light, 0, 255).astype(np.uint8))
    return np.stack(frames)


def write_data_set(root: Path, lengths, codec="h264", fps=FPS, dtype="video", size=SIZE) -> Path:
    """Write a data set with two cameras, all episodes in one file of each."""
    picture = {"dtype": dtype, "shape": (*size, 3), "names": ["height", "width", "channels"]}
    features = {
        **dict.fromkeys(CAMERAS, picture),
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    module = import_lerobot("datasets.lerobot_dataset")
    data_set = module.LeRobotDataset.create(
        "local/test", fps, features, root=root, use_videos=dtype == "video", vcodec=codec
    )
    for episode, length in enumerate(lengths):
        clips = [draw_frames(camera, episode, length, size) for camera in range(2)]
        for k in range(length):
            pictures = {key: clip[k] for key, clip in zip(CAMERAS, clips, strict=True)}
            action = np.array([k, episode], np.float32)
            done = np.array([k == length - 1])
            data_set.add_frame({**pictures, "action": action, "next.done": done, "task": "push"})
        data_set.save_episode(parallel_encoding=False)
    data_set.finalize()
    av.logging.set_level(None)
    return root


def load_data_set(root: Path, **options):
    """Load a data set, as a ``LeRobotDataset``."""
    module = import_lerobot("datasets.lerobot_dataset")
    return module.LeRobotDataset("local/test", root=root, video_backend="pyav", **options)
