"""Small data sets in their published formats, and ways to damage them."""

import json
import pickle

import cv2
import numpy as np
from PIL import Image

from vditrack.synthetic.annotated_clip import AnnotatedClip

RNG = np.random.default_rng(0)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + 252 * [9, 9, 9]


def random_image(height=6, width=8):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def tapvid_clip(length=3, count=2, **changes):
    clip = {
        "video": np.stack([random_image() for _ in range(length)]),
        "points": RNG.random((count, length, 2), np.float32),
        "occluded": RNG.random((count, length)) < 0.4,
    }
    return clip | changes


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def write_image(path, image):
    """Write an RGB image with OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_mask(path, labels):
    """Write a mask as DAVIS has it, with a palette whose colours are not the indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, np.uint8)).convert("P")
    image.putpalette(PALETTE)
    image.save(path)


def write_videos(root, names=("b", "a"), masks=True, tracks=True):
    """Write videos in the simple layout; return what was written."""
    written = {}
    for name in names:
        clip = tapvid_clip(12)
        clip["masks"] = RNG.integers(0, 4, (12, 6, 8), np.uint8)
        for t, frame in enumerate(clip["video"]):
            # Without leading zeros, 10 comes before 2 in the order of letters.
            write_image(root / name / f"frames/{t}.png", frame)
            if masks:
                write_mask(root / name / f"masks/{t}.png", clip["masks"][t])
        if tracks:
            np.savez(root / name / "tracks.npz", points=clip["points"], occluded=clip["occluded"])
        written[name] = clip
    return written


def write_davis(root, names, listed=None):
    written = {}
    for name in names:
        frames = [random_image() for _ in range(4)]
        labels = RNG.integers(0, 3, (4, 6, 8), np.uint8)
        labels[:, 0, :3] = 255
        for t in range(4):
            path = root / f"JPEGImages/480p/{name}/{t:05d}.jpg"
            write_image(path, frames[t])
            frames[t] = cv2.imread(str(path))[..., ::-1]
            write_mask(root / f"Annotations/480p/{name}/{t:05d}.png", labels[t])
        written[name] = np.stack(frames), np.where(labels == 255, 0, labels)
    if listed is not None:
        (root / "ImageSets/2017").mkdir(parents=True)
        (root / "ImageSets/2017/val.txt").write_text("\n".join(listed) + "\n")
    return written


def write_badja(root, name="bear", annotated=(2, 5, 7), extra=False):
    """Write a video of frames 0 to 9, in which all joints but every third are visible."""
    if extra:
        images, masks = f"extra_videos/{name}/rgb", f"extra_videos/{name}/segmentations"
    else:
        images, masks = (
            f"DAVIS/{kind}/Full-Resolution/{name}" for kind in ("JPEGImages", "Annotations")
        )
    image_type = "png" if extra else "jpg"
    for t in range(10):
        write_image(root / images / f"{t:05d}.{image_type}", np.full((6, 8, 3), 20 * t, np.uint8))
        write_mask(root / masks / f"{t:05d}.png", np.arange(48).reshape(6, 8) % 4)
    rows = [
        {
            "image_path": f"{images}/{t:05d}.{image_type}",
            "segmentation_path": f"{masks}/{t:05d}.png",
            "joints": [[n / 10 + t, n / 8] for n in range(37)],
            "visibility": [n % 3 > 0 for n in range(37)],
        }
        for t in annotated
    ]
    annotations = root / f"joint_annotations/{name}.json"
    annotations.parent.mkdir(exist_ok=True, parents=True)
    annotations.write_text(json.dumps(rows))
    return annotations


def remove(path):
    return lambda root: (root / path).unlink()


def put(path, content):
    return lambda root: (root / path).write_bytes(content)


def assert_equals(clip: AnnotatedClip, content, name):
    assert clip.name == name
    np.testing.assert_array_equal(clip.frames, content["video"])
    np.testing.assert_array_equal(clip.visible, ~content["occluded"])
    height, width = content["video"].shape[1:3]
    for n, t in zip(*np.nonzero(clip.visible), strict=True):
        x, y = content["points"][n, t]
        np.testing.assert_allclose(clip.points[n, t], [x * width, y * height], rtol=1e-6)
    assert clip.points.dtype == np.float32
    assert clip.frames.dtype == np.uint8
    assert clip.masks is None
