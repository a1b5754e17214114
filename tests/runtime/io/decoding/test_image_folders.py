"""Folders of images: order, times, sizes, and images that are damaged or missing."""

import struct

import cv2
import numpy as np
import pytest

from doubles.video_files import moving_texture
from vditrack import InputError
from vditrack.io.video import read_video

FRAMES = moving_texture(12)


@pytest.fixture
def write_images(tmp_path):
    """Write frames under the given names into a folder."""

    def write(names, frames=FRAMES):
        folder = tmp_path / "frames"
        folder.mkdir()
        for name, frame in zip(names, frames, strict=False):
            stored = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.ndim == 3 else frame
            cv2.imwrite(str(folder / name), stored)
        return folder

    return write


@pytest.mark.parametrize("pattern", ["{}.png", "frame_{:04}.png", "cam0-{}.PNG", "2024.01.{}.png"])
def test_images_are_read_in_the_order_of_their_numbers(write_images, pattern):
    folder = write_images([pattern.format(number) for number in range(1, 13)])
    (folder / "._1.png").write_bytes(b"of the system")
    (folder / "notes.txt").write_text("more")
    video = read_video(folder)
    np.testing.assert_array_equal(video.frames, FRAMES)
    np.testing.assert_allclose(video.times, np.arange(12) / 30)
    assert video.gaps == ()
    (remark,) = video.remarks
    assert "30 frames per second are assumed" in remark


def test_a_part_of_a_folder(write_images):
    folder = write_images([f"{number}.png" for number in range(12)])
    video = read_video(folder, start=0.1, end=0.2)
    np.testing.assert_array_equal(video.frames, FRAMES[3:6])
    np.testing.assert_allclose(video.times, [0.1, 4 / 30, 5 / 30])
    with pytest.raises(InputError, match=r"no image between 5 s .* its 12 images last 0\.40 s"):
        read_video(folder, start=5)


@pytest.mark.parametrize("step", [1, 5])
def test_missing_numbers_are_a_gap(write_images, step):
    folder = write_images([f"{step * number:05}.png" for number in (0, 1, 2, 6, 7)])
    video = read_video(folder)
    np.testing.assert_allclose(video.times, np.array([0, 1, 2, 6, 7]) / 30)
    assert video.gaps == ((pytest.approx(2 / 30), pytest.approx(6 / 30), 3),)
    assert "3 frames are missing" in video.remarks[1]


def test_stamps_in_names_are_no_frame_numbers(write_images):
    stamps = [1403636579763555584 + 50_000_000 * t + 13 * (t % 3) for t in range(12)]
    video = read_video(write_images([f"{stamp}.png" for stamp in stamps]))
    np.testing.assert_allclose(video.times, np.arange(12) / 30)


def test_damaged_images_are_a_gap_and_sloppy_ones_are_whole(write_images):
    folder = write_images([f"{number}.jpg" for number in range(12)])
    whole = read_video(folder)
    content = {number: (folder / f"{number}.jpg").read_bytes() for number in range(12)}
    (folder / "3.jpg").write_bytes(content[3][: len(content[3]) // 2])
    (folder / "4.jpg").write_bytes(b"")
    (folder / "5.jpg").write_bytes(content[5][:-2])
    (folder / "6.jpg").write_bytes(content[6] + b"and more" * 9)
    video = read_video(folder)
    kept = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(video.frames, whole.frames[kept])
    np.testing.assert_allclose(video.times, np.array(kept) / 30)
    assert video.gaps == ((pytest.approx(2 / 30), pytest.approx(5 / 30), 2),)
    assert "3.jpg, 4.jpg cannot be decoded" in video.remarks[1]


def test_a_truncated_png_is_a_gap(write_images):
    folder = write_images([f"{number}.png" for number in range(3)])
    content = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(content[: len(content) // 2])
    video = read_video(folder)
    assert len(video.times) == 2
    assert video.gaps == ((pytest.approx(1 / 30), pytest.approx(3 / 30), 1),)


def test_mixed_sizes_and_types_are_refused(write_images, tmp_path):
    folder = write_images(["0.png", "1.png", "2.png"], [*FRAMES[:2], FRAMES[2][:48]])
    with pytest.raises(InputError, match=r"2\.png is 128 x 48, but the images before it are 128 x"):
        read_video(folder)
    (folder / "2.png").unlink()
    cv2.imwrite(str(folder / "2.jpg"), FRAMES[2])
    with pytest.raises(InputError, match="has 1 JPEG and 2 PNG images"):
        read_video(folder)
    with pytest.raises(InputError, match="without JPEG or PNG images"):
        read_video(tmp_path)


def test_a_folder_of_damaged_images_is_refused(write_images):
    folder = write_images(["0.jpg", "1.jpg"])
    for path in folder.iterdir():
        path.write_bytes(b"\xff\xd8 no more")
    with pytest.raises(InputError, match=r"0\.jpg and all other images are damaged"):
        read_video(folder)


def test_16_bits_are_scaled_by_the_range_of_all_images(write_images):
    grey = FRAMES[:4, :, :, 0].astype(np.uint16)
    video = read_video(write_images([f"{number}.png" for number in range(4)], 4 * grey + 500))
    assert "16 bits" in video.remarks[1]
    assert (video.frames[..., 0] == video.frames[..., 2]).all()
    # Linear, in all images alike, and most of the range is used.
    slope, offset = np.polyfit(grey.ravel(), video.frames[..., 0].ravel(), 1)
    assert 0.8 < slope < 1.1
    assert np.abs(video.frames[..., 0] - (slope * grey + offset)).max() < 8


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture by EXIF 2.32, table 6: where the stored row 0 and column 0 are shown."""
    return {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: picture[::-1].transpose(1, 0, 2),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: picture[:, ::-1].transpose(1, 0, 2),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_shown_as_exif_says(write_images, orientation):
    folder = write_images(["0.jpg"])
    plain = read_video(folder).frames[0]
    tag = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + tag
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path = folder / "0.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:2] + segment + content[2:])
    expected = turned(plain, orientation)
    np.testing.assert_array_equal(read_video(folder).frames[0], expected)
    # The file alone is decoded by FFmpeg.
    alone = read_video(path).frames[0]
    assert alone.shape == expected.shape
    # Both interpolate colour in their own way; another orientation is off by more than 60.
    assert np.abs(alone.astype(int) - expected).mean() < 15
