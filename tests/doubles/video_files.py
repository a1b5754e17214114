"""Small video files of known content, written by FFmpeg directly."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

RATE = 25


def moving_texture(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames uint8 [count, height, width, 3] of smooth blobs that move by (2, 1) pixels a frame."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 8 + count // 8 + 2, width // 8 + count // 4 + 2, 3))
    large = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([large[t : t + height, 2 * t : 2 * t + width] for t in range(count)])


def add_video(container, codec, frames, *, options=None, pix_fmt="yuv420p"):
    """Add a stream for the frames, without content."""
    stream = container.add_stream(codec, rate=RATE, options=options or {})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pix_fmt
    return stream


def mux_video(container, stream, frames) -> None:
    """Encode all frames into a stream."""
    for frame in frames:
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
    container.mux(stream.encode(None))


def write_video_file(
    path: Path, frames, codec="libx264", *, options=None, pix_fmt="yuv420p", muxer=None
) -> Path:
    """Write a file with one video stream at 25 frames per second."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = add_video(container, codec, frames, options=options, pix_fmt=pix_fmt)
        mux_video(container, stream, frames)
    return path


def packets_of(path: Path) -> list[tuple[bytes, bool, int]]:
    """The packets of the first video stream: content, whether it is a key frame, and its pts."""
    with av.open(str(path)) as container:
        return [
            (bytes(packet), packet.is_keyframe, packet.pts)
            for packet in container.demux(container.streams.video[0])
            if packet.size
        ]


def overwrite_packet(source: Path, index: int, begin: float, end: float) -> Path:
    """Copy a file with zeros in a part of a packet, from ``begin`` to ``end`` (0 to 1)."""
    content = bytearray(source.read_bytes())
    packet, _, _ = packets_of(source)[index]
    at = bytes(content).index(packet)
    first, last = (round(share * len(packet)) for share in (begin, end))
    content[at + first : at + last] = bytes(last - first)
    damaged = source.with_name(f"damaged_{source.name}")
    damaged.write_bytes(content)
    return damaged


def write_cover(container, disposition=Disposition.attached_pic):
    """Add a stream of one grey picture, 40 x 50, and return how to write it."""
    picture = np.full((1, 50, 40, 3), 99, np.uint8)
    stream = add_video(container, "mjpeg", picture, pix_fmt="yuvj420p")
    stream.disposition = disposition
    return lambda: mux_video(container, stream, picture)


def set_display_matrix(path: Path, matrix) -> None:
    """Set the matrix (a, b, c, d) in the track header of an MP4 (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    # Version 0 of the header: 40 bytes of times, ids and volume come before the matrix.
    start = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 65536).to_bytes(4, "big", signed=True) for value in matrix)
    zero, one = bytes(4), (1 << 30).to_bytes(4, "big")
    content[start : start + 36] = a + b + zero + c + d + zero + zero + zero + one
    path.write_bytes(content)


def frame_time(index: int) -> float:
    """Seconds of a frame."""
    return float(Fraction(index, RATE))
