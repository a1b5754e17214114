"""Cached keys and values: what a command line makes of a card, and what it refuses."""

import msgspec
import pytest

from vditrack.errors import InputError
from vditrack_export.card import Card, load_card
from vditrack_export.card_changes import change_card

WAN, CAUSAL, CHUNKS = "wan2.1-t2v-1.3b", "wan2.1-causal-1.3b", "wan2.1-causal-1.3b-chunk3"


@pytest.mark.parametrize(
    ("card", "changes", "frames", "described"),
    [
        (WAN, {"attention": "cached"}, 25, 1),
        (WAN, {"attention": "cached", "temporal_stride": 4}, 25, 4),
        (WAN, {"attention": "cached", "described": 5}, 25, 5),
        (CAUSAL, {"frames": 29}, 29, 4),
        (CAUSAL, {"temporal_stride": 1}, 25, 1),
        (CHUNKS, {"frames": 45}, 45, 12),
    ],
)
def test_steps_keep_their_latents(
    card: str, changes: dict[str, str | int], frames: int, described: int
) -> None:
    size = change_card(load_card(card), **changes).input  # type: ignore[arg-type]
    assert (size.frames, size.described_frames) == (frames, described)
    assert size.cached_latents == size.latents - size.described_latents > 0


@pytest.mark.parametrize(
    ("card", "changes", "complaint"),
    [
        ("cogvideox-2b", {"attention": "cached"}, "family cogvideox: give window"),
        ("hunyuan-video", {"attention": "cached"}, "family hunyuan_video: give window"),
        ("stable-diffusion-2.1", {"attention": "cached"}, "stable_diffusion: give window"),
        (WAN, {"attention": "causal"}, "family wan: give window or cached"),
        (CAUSAL, {"attention": "window"}, "family wan_causal: give causal"),
        (CHUNKS, {"frames": 29}, "8 latents of a window are not a multiple of the 3 described"),
        (CHUNKS, {"described": 4}, "takes 3 latents at a time: described_frames are not 12"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    card: str, changes: dict[str, str | int], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        change_card(load_card(card), **changes)  # type: ignore[arg-type]


def test_masks_are_read_from_whole_windows() -> None:
    plain = msgspec.to_builtins(load_card(WAN))
    plain["masks"]["motion"]["input"] |= {"described_frames": 4, "attention": "cached"}
    with pytest.raises(msgspec.ValidationError, match="masks are read from whole windows"):
        msgspec.convert(plain, Card)
