"""Mask propagation in a live stream: causal, with constant work a frame."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.arrays import Frame, Mask
from vditrack.bundle.configuration import Streaming
from vditrack.errors import InputError
from vditrack.features.fusion import FusedFeatures, FusedMap, FusedWindow
from vditrack.input_checks.arrays import check_frame, check_mask
from vditrack.masks.boxes import check_boxes, segment_boxes
from vditrack.masks.objects import MaskedObjects
from vditrack.streams.frame_clock import FrameClock
from vditrack.streams.mask_bridging import BridgedFrames, BridgedObjects, carry_mask
from vditrack.streams.mask_history import EncodedFrame, FrameHistory, SkippedFrame


@dataclass(frozen=True)
class MaskUpdate:
    """The objects of a stream in the frame just pushed."""

    stamp: float
    """Stamp of the frame, in seconds."""
    mask: NDArray[np.uint8]
    """[H, W]: the index of the object at each pixel, 0 for the background."""
    indices: NDArray[np.uint8]
    """[N] indices of all objects marked so far, in order, including those with no pixel in the
    frame."""
    frames_since_marked: NDArray[np.int64]
    """[N] frames since a mask last named the object."""
    agreement: NDArray[np.float32]
    """[N] share of the matches that agree on the object, mean over its cells: 1 where its mask was
    given for the frame, 0 where it has no cell. It is no probability."""


@dataclass(frozen=True)
class DescribedFrame:
    """A frame of a stream with its features, which `MaskStream.push_described` takes."""

    seen: SkippedFrame
    """The frame at the model's input size, its stamp and its own size."""
    fused: FusedMap | None
    """Features of the frame; None if its latent is not complete."""
    window: FusedWindow
    """The features' windows of the stream."""
    window_after: FusedWindow | None
    """State of these windows after the frame; None if a copy cannot describe one more."""


class MaskStream:
    """Propagates object masks in a live stream of frames.

    The work and the memory of a push depend on the bundle and on the number of objects, not on how
    long the stream has run or how often objects were marked.

    - A frame with the stamp of the one before is the same frame: nothing is computed.
    - A frame with an older stamp is an error; `reset` starts over after a jump of the clock.
    - If the frame size changes, objects keep their relative position.
    - A mask that comes late is added to the frame that it was made for, and propagated from there:
      the result is that of a mask which came in time.
    - Where latents share frames, features come with the last frame of a latent. In the frames
      between, optical flow carries the masks, and a mask that is given for one of them is carried
      to the next frame with features.
    """

    def __init__(
        self, features: FusedFeatures, streaming: Streaming, threads: int | None = None
    ) -> None:
        """Start a live stream.

        Args:
            features: the bundle's fused features.
            streaming: how the stream treats time, and which frames it keeps for late masks.
            threads: most threads that propagate labels; None for one on each core.

        """
        self._features, self._streaming, self._threads = features, streaming, threads
        self.reset()

    def reset(self) -> None:
        """Drop all objects and frames."""
        self._window = self._features.window()
        self._clock = FrameClock(self._streaming.interval_history)
        self._newest_stamp: float | None = None
        self._history = FrameHistory(self._streaming.mask_history)
        self._bridged = BridgedFrames()

    def add_masks(self, mask: NDArray[np.uint8], stamp: float | None = None) -> float:
        """Mark objects on a frame, from which they are propagated.

        An object that the mask names is moved to where the mask has it. The other objects stay
        where they are, except for the pixels that the mask takes. The masks of an earlier frame are
        propagated again through all frames after it, with the masks that were given for those: once
        for all masks that are given before the next push.

        Args:
            mask: uint8 [H, W] of that frame: indices of objects, new ones or known ones, in any
                order and with gaps; 0 leaves a pixel as it is.
            stamp: stamp of the frame, in seconds: one that was pushed, or given to `keep`. By
                default the last frame pushed.

        Returns:
            The stamp of the frame on which the mask was placed. It differs from ``stamp`` by at
            most `MaskHistory.max_offset`, if no frame with that stamp was pushed or kept.

        Raises:
            LateMaskError: The frame is no longer kept, or never was.
            InputError: No frame was pushed yet, the stamp is later than the last frame's, or the
                mask does not fit the frame.

        """
        found = self._find(stamp)
        check_mask(mask, found.size)
        if isinstance(found, EncodedFrame):
            # The frames since are propagated into once, however many masks are given before a push.
            found.new_masks.append(mask.copy())
        else:
            self._add_to_skipped(found, mask.copy())
        return found.stamp

    def segment_boxes(
        self, boxes: ArrayLike, indices: ArrayLike, stamp: float | None = None
    ) -> NDArray[np.uint8]:
        """Return a mask of the objects in boxes, for `add_masks`.

        The outline of each object is searched inside its box, by colour.

        Args:
            boxes: [N, 4] (x0, y0, x1, y1) in pixels of the frame; (0, 0) is the upper-left corner
                of the upper-left pixel.
            indices: [N] index of the object of each box, from 1 to 255.
            stamp: stamp of the frame, as in `add_masks`.

        Returns:
            uint8 [H, W] of that frame.

        Raises:
            LateMaskError: The frame is no longer kept, or never was.
            InputError: No frame was pushed yet, the stamp is later than the last frame's, or a box
                or an index is invalid.

        """
        found = self._find(stamp)
        corners, numbers = np.asarray(boxes, np.float64), np.asarray(indices)
        if corners.ndim != 2 or corners.shape[1] != 4 or numbers.shape != (len(corners),):
            raise InputError(
                f"boxes have shape {list(corners.shape)} and indices {list(numbers.shape)}; give "
                "[N, 4] (x0, y0, x1, y1) and [N]."
            )
        if not ((numbers >= 1) & (numbers <= 255)).all():
            raise InputError("indices of objects are from 1 to 255.")
        check_boxes(corners, found.size)
        settings = self._streaming.box_outlines
        return segment_boxes(found.shrunk, found.size, corners, numbers, settings)

    def frame_size(self, stamp: float) -> tuple[int, int] | None:
        """Return the height and width of the frame that a mask with a stamp would be placed on.

        This method may run in another thread than the others.

        Args:
            stamp: in seconds, of a frame that was pushed or kept.

        Returns:
            None if no frame was pushed yet.

        Raises:
            LateMaskError: The frame is no longer kept, or never was.

        """
        has_frames = self._history.encoded or self._bridged.frames
        return self._history.find(stamp).size if has_frames else None

    def hold(self, stamps: Iterable[float]) -> None:
        """Keep frames for masks that are to come, beyond the limit of time.

        All frames from the earliest stamp on are kept, until this is called with later stamps or
        none. The limit of memory still applies. This method may run in another thread than the
        others.

        Args:
            stamps: of the frames, in seconds; they replace those of the call before.

        """
        self._history.hold(stamps)

    def remove(self, index: int) -> None:
        """Forget an object. Its pixels become background.

        Raises:
            InputError: There is no object with the index.

        """
        self._history.refresh()
        if index not in self._objects().indices:
            raise InputError(f"there is no object with index {index} in this stream.")
        self._bridged.remove(index)
        encoded = self._history.encoded
        for frame in encoded[:-1]:
            frame.remove(index, later=True)
        for frame in encoded[-1:]:
            frame.remove(index, later=False)

    def keep(self, frame: NDArray[np.uint8], stamp: float) -> None:
        """Keep a frame that is not pushed, so that a mask can be given for it.

        The frame is kept at the model's input size, as long as pushed frames are. It is encoded
        when a mask is given for it. This method may run in another thread than the others.

        Args:
            frame: uint8 [H, W, 3] RGB.
            stamp: in seconds, between those of the frame pushed before and of the one pushed next.

        Raises:
            InputError: The frame is another array.

        """
        check_frame(frame)
        height, width = frame.shape[:2]
        self._history.add_skipped(
            SkippedFrame(stamp, (height, width), self._features.shrink(frame))
        )

    def push(self, frame: NDArray[np.uint8], stamp: float) -> MaskUpdate:
        """Propagate all objects into the next frame.

        The frame is uint8 [H, W, 3] RGB; its stamp is in seconds of any epoch.

        Raises:
            InputError: The frame is another array, or the stamp is NaN or older than the last.

        """
        check_frame(frame)
        if stamp == self._newest_stamp:
            self._history.refresh()
            return self._update(stamp)
        return self.push_described(self.describe(frame, stamp))

    def describe(self, frame: NDArray[np.uint8], stamp: float) -> DescribedFrame:
        """Compute the features of the next frame, ahead of its push.

        `push` does this and `push_described` in turn. A caller with two threads describes the next
        frame in one, while the other propagates labels into the frame before: this method may run
        in another thread than the others. Each frame is described once, in the order of stamps.

        Args:
            frame: uint8 [H, W, 3] RGB.
            stamp: in seconds of any epoch, later than that of the frame described before.

        Raises:
            InputError: The frame is another array, or the stamp is not later.

        """
        check_frame(frame)
        if self._clock.advance(stamp) == 0:
            raise InputError(f"the frame with stamp {stamp} was described before.")
        window, (height, width) = self._window, frame.shape[:2]
        seen = SkippedFrame(stamp, (height, width), self._features.shrink(frame))
        # A frame of 640 x 480 takes 2 ms to resize.
        fused = window.push(seen.shrunk if self._features.has_one_size else frame)
        after = window.copy() if window.describes_skipped_frames else None
        return DescribedFrame(seen, fused, window, after)

    def push_described(self, described: DescribedFrame) -> MaskUpdate:
        """Propagate all objects into the next frame, whose features are there already.

        Args:
            described: the next frame that `describe` returned.

        Raises:
            InputError: The frame was described before a `reset`, or is older than the last pushed.

        """
        stamp, newest = described.seen.stamp, self._newest_stamp
        if described.window is not self._window or (newest is not None and stamp <= newest):
            raise InputError(
                f"the frame with stamp {stamp} is of another stream or before its reset, or is not "
                "later than the last one pushed. Push each frame once, in the order of `describe`."
            )
        self._history.refresh()
        self._newest_stamp = stamp
        self._propagate_into(described)
        return self._update(stamp)

    def carry(self, update: MaskUpdate, before: Frame, after: Frame, stamp: float) -> MaskUpdate:
        """Return the masks of one frame, carried into another by dense optical flow.

        It takes a fraction of the time of `push`, for frames that are not pushed, such as those
        that come while the networks work. Nothing of the stream changes. This method may run in
        another thread than the others.

        Args:
            update: masks of a frame that was pushed.
            before: that frame, uint8 [H, W, 3] RGB.
            after: the other frame.
            stamp: stamp of the other frame, in seconds.

        """
        height, width = after.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        if update.mask.any():
            shrunk = self._features.shrink(before), self._features.shrink(after)
            mask = carry_mask(update.mask, *shrunk, (height, width))
        return replace(update, stamp=stamp, mask=mask)

    def _update(self, stamp: float) -> MaskUpdate:
        objects = self._objects()
        return MaskUpdate(
            stamp=stamp,
            mask=objects.mask,
            indices=objects.indices,
            frames_since_marked=objects.frames_since_marked,
            agreement=objects.agreement,
        )

    def _objects(self) -> BridgedObjects:
        """Return the objects in the newest frame."""
        encoded = self._history.encoded[-1] if self._history.encoded else None
        objects = self._start() if encoded is None else encoded.objects
        if self._bridged.frames:
            return self._bridged.bridge(encoded, objects)
        known = objects.indices[1:].copy(), objects.frames_since_marked
        return BridgedObjects(objects.mask, *known, objects.agreement)

    def _start(self) -> MaskedObjects:
        """Return the objects before the first frame with features: none."""
        return MaskedObjects(self._features.settings, self._threads)

    def _propagate_into(self, described: DescribedFrame) -> None:
        encoded, bridged = self._history.encoded, self._bridged
        seen, fused = described.seen, described.fused
        if fused is None:
            bridged.frames.append(seen)
            self._history.add_skipped(seen)
            return
        objects = encoded[-1].objects.copy() if encoded else self._start()
        count = 1 + len(bridged.frames)
        objects.advance(fused.descriptors, seen.size, fused.velocity, frames=count)
        newest = EncodedFrame(
            seen.stamp,
            seen.size,
            seen.shrunk,
            fused,
            described.window_after,
            objects,
            frames=count,
        )
        newest.new_masks += bridged.carry_masks(newest)
        self._bridged = BridgedFrames()
        self._history.append(newest)
        self._history.refresh()

    def _find(self, stamp: float | None) -> EncodedFrame | SkippedFrame:
        pushed = self._bridged.frames[-1:] or self._history.encoded[-1:]
        if not pushed:
            raise InputError("a mask was given before the first frame. Push a frame first.")
        newest = pushed[0]
        if stamp is None:
            return newest
        # Written so that NaN fails too.
        if not stamp <= newest.stamp:
            raise InputError(
                f"the mask's stamp {stamp} is later than the last frame's, {newest.stamp}. Push "
                "its frame first."
            )
        return self._history.find(stamp)

    def _add_to_skipped(self, skipped: SkippedFrame, mask: Mask) -> None:
        """Add a mask to a frame without features.

        The frame is encoded if that gives features. If not, the mask is carried to the next frame
        that has some.
        """
        encoded, number = self._history.encoded, self._history.number_before(skipped.stamp)
        if number + 1 == len(encoded):
            self._bridged.masks.append((skipped, mask))
            return
        window, fused = encoded[number].window, None
        if window is not None:
            window = window.copy()
            fused = window.push(skipped.shrunk)
        if window is None or fused is None:
            after = encoded[number + 1]
            after.new_masks.append(carry_mask(mask, skipped.shrunk, after.shrunk, after.size))
            return
        self._history.insert(skipped, fused, window).new_masks.append(mask)
