"""Frames of a window, and the described ones of them, as the command line changes a card's."""

from collections.abc import Iterator
from dataclasses import dataclass

from vditrack.bundle.manifest import latents_of
from vditrack.errors import InputError
from vditrack_export.card import Card

_MOST_LATENTS = 10_000
"""Bundles have no larger windows."""


def choose_described(
    card: Card,
    frames: int | None,
    described: int | None,
    temporal_stride: int | None,
    attention: str | None,
) -> int | None:
    """Return the frames that get descriptors; None for the card's.

    Arguments are those of `vditrack_export.card_changes.change_card`.
    """
    if described is not None:
        return described
    size = card.input
    if (attention or size.attention) == "window":
        return frames
    # As many latents as before, but one where the card describes all of its windows.
    latents = 1 if size.attention == "window" else size.described_latents
    return latents * (temporal_stride or size.temporal_stride)


def check_window(
    card: Card,
    frames: int | None,
    described: int | None,
    temporal_stride: int | None,
    attention: str | None,
) -> None:
    """Check that the frames of a window, and the described ones of them, are whole latents.

    Arguments are those of `vditrack_export.card_changes.change_card`; the card's encoder has the
    temporal stride.

    Raises:
        InputError: They are not; the message has the option and the values that it may have.

    """
    size = card.input
    window = _Window(
        card,
        size.frames if frames is None else frames,
        "the card's frames are" if frames is None else "--frames",
        temporal_stride or size.temporal_stride,
        attention or size.attention,
    )
    if window.attention not in card.transformer.attentions:
        # The card's own check says so.
        return
    if window.attention == "window":
        window.check_frames(1, 1)
        if described is not None:
            window.check_described(described)
        return
    chunk = card.transformer.chunk_size
    if described is not None:
        if described == window.frames and chunk in {None, window.latents}:
            # One chunk is the whole window.
            return
        if chunk is not None:
            window.check_chunk(described, chunk)
        else:
            window.check_frames(1, 2)
            window.check_divisor(described)
            return
    chosen = choose_described(card, frames, described, temporal_stride, attention)
    assert chosen is not None
    window.check_frames(chosen // window.stride, 2)


@dataclass(frozen=True)
class _Window:
    """A window of a card, as changed."""

    card: Card
    frames: int
    given: str
    """Words before the number of frames that say where it comes from."""
    stride: int
    """Frames that share a latent."""
    attention: str

    @property
    def latents(self) -> int:
        return latents_of(self.frames, self.stride)

    def check_frames(self, chunk: int, chunks: int) -> None:
        """Check that a window has whole chunks of so many latents, and at least so many chunks."""
        first, step = 1 + (chunks * chunk - 1) * self.stride, chunk * self.stride
        if self.frames >= first and (self.frames - first) % step == 0:
            return
        below = self.frames - (self.frames - first) % step
        nearest = [first] if self.frames < first else [below, below + step]
        kind = f"with temporal stride {self.stride}"
        legal = f"{first} + a multiple of {step} frames" if step > 1 else f"{first} or more frames"
        if self.attention != "window":
            kind = f'{kind} and attention "{self.attention}"'
            legal = f"{legal}: two or more times the {_count_latents(chunk)} of a step"
        raise InputError(
            f"{self.given} {self.frames}, and {kind} a window of card {self.card.name} has "
            f"{legal}. Give {_list_options('--frames', nearest)}."
        )

    def check_described(self, described: int) -> None:
        """Check the frames that get descriptors of a window that is computed as a whole."""
        if described == self.frames:
            return
        if 0 < described < self.frames and described % self.stride == 0:
            return
        part = f"a multiple of {self.stride}" if self.stride > 1 else "1 or more"
        raise InputError(
            f"--described {described}: a window has {self.frames} frames. With temporal stride "
            f"{self.stride}, give {part} below that, or {self.frames} for all frames of a window."
        )

    def check_chunk(self, described: int, chunk: int) -> None:
        """Check the frames that get descriptors of a model with chunks of so many latents."""
        if described != chunk * self.stride:
            raise InputError(
                f"--described {described}: the transformer of card {self.card.name} takes "
                f"{_count_latents(chunk)} at a time, with temporal stride {self.stride}. Leave "
                f"the option out, or give --described {chunk * self.stride}."
            )

    def check_divisor(self, described: int) -> None:
        """Check that the described latents divide those of the window."""
        legal = sorted(self._list_divisors(), key=lambda each: abs(each - described))
        if described not in legal:
            raise InputError(
                f'--described {described}: with attention "{self.attention}", a window of '
                f"{_count_latents(self.latents)}, with temporal stride {self.stride}, is computed "
                "in equal steps of whole latents. Give "
                f"{_list_options('--described', sorted(legal[:2]))}."
            )

    def _list_divisors(self) -> Iterator[int]:
        """Yield the frames of each chunk that a window has twice or more."""
        for chunk in range(1, min(self.latents, _MOST_LATENTS)):
            if self.latents % chunk == 0:
                yield chunk * self.stride


def _count_latents(count: int) -> str:
    return "1 latent" if count == 1 else f"{count} latents"


def _list_options(option: str, values: list[int]) -> str:
    return " or ".join(f"{option} {value}" for value in values)
