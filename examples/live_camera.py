"""Track points through a camera stream, and add points when too few are left.

python examples/live_camera.py 0                 # the first camera
python examples/live_camera.py rtsp://robot/cam  # whatever OpenCV opens, also a video file
"""

import sys
import time

import cv2
import numpy as np

from vditrack import Tracker

LEAST_VISIBLE = 20


def main(source: str) -> None:
    """Print one line for each frame until the stream ends."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    # live() never waits for a model that is slower than the camera: optical flow bridges the gap.
    with Tracker.load().live() as live:
        while True:
            received, bgr = capture.read()
            stamp = time.monotonic()  # seconds; a driver's own stamp is better
            if not received:
                break
            frame = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            update = live.push(frame, stamp)
            print(f"{update.visible.sum()} visible of {len(update.ids)} points")
            if update.visible.sum() < LEAST_VISIBLE:
                live.remove(update.ids[~update.visible])
                corners = cv2.goodFeaturesToTrack(
                    cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), 40, 0.01, 10
                )
                if corners is not None:
                    # OpenCV's origin is the centre of the first pixel, ours is its corner.
                    live.add(corners.reshape(-1, 2) + np.float32(0.5))


if __name__ == "__main__":
    main(sys.argv[1])
