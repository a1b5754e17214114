"""Cached keys and values: what a command line makes of a card, and the tracks that admit them."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from doubles.cards import save_card
from doubles.pipelines import run_export
from doubles.tiny_checkpoint import TINY_CARD
from vditrack.bundle.folder import ACCEPTANCE, load_bundle
from vditrack.cli.inspect import inspect
from vditrack.errors import InputError, VditrackError
from vditrack_export.card import Card, load_card
from vditrack_export.card_changes import change_card
from vditrack_export.pipeline import acceptance

WAN, CAUSAL, CHUNKS = "wan2.1-t2v-1.3b", "wan2.1-causal-1.3b", "wan2.1-causal-1.3b-chunk3"


@pytest.mark.parametrize(
    ("card", "changes", "frames", "described"),
    [
        (WAN, {"attention": "cached"}, 25, 1),
        (WAN, {"attention": "cached", "temporal_stride": 4}, 25, 4),
        (WAN, {"attention": "cached", "described": 5}, 25, 5),
        (CAUSAL, {"frames": 29}, 29, 4),
        (CAUSAL, {"temporal_stride": 1}, 21, 1),
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
        (CHUNKS, {"frames": 29}, "21 . a multiple of 12 frames.*Give --frames 21 or --frames 33"),
        (CHUNKS, {"frames": 9}, "--frames 9, and .*Give --frames 21"),
        (CAUSAL, {"frames": 1}, "--frames 1, and .*Give --frames 5"),
        (CHUNKS, {"described": 4}, "takes 3 latents at a time, .*give --described 12"),
        (CAUSAL, {"described": 21}, "--described 21: .*1 latent at a time, .*give --described 4"),
        (CAUSAL, {"described": 3}, "--described 3: .*1 latent at a time, .*give --described 4"),
        (WAN, {"attention": "cached", "described": 4}, "Give --described 1 or --described 5"),
        (WAN, {"described": 30}, "--described 30: a window has 25 frames.*give 1 or more below"),
        (WAN, {"frames": 0}, "--frames 0, and .* has 1 or more frames. Give --frames 1"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    card: str, changes: dict[str, str | int], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        change_card(load_card(card), **changes)  # type: ignore[arg-type]


def test_a_card_with_another_chunk_is_refused() -> None:
    plain = msgspec.to_builtins(load_card(CAUSAL))
    plain["input"] |= {"frames": 29, "described_frames": 8}
    with pytest.raises(msgspec.ValidationError, match="described_frames are 8 and must be 4"):
        msgspec.convert(plain, Card)


def test_masks_are_read_from_whole_windows() -> None:
    plain = msgspec.to_builtins(load_card(WAN))
    plain["masks"]["motion"]["input"] |= {"described_frames": 4, "attention": "cached"}
    with pytest.raises(msgspec.ValidationError, match="masks are read from whole windows"):
        msgspec.convert(plain, Card)


def test_tracks_beyond_the_limits_are_refused() -> None:
    size = change_card(load_card("tiny"), attention="cached", frames=4).input
    points, seen = np.full((64, 16, 2), 20, np.float32), np.ones((64, 16), np.bool_)
    window = acceptance.ScoredTracks(size, points, seen, points, seen)
    cached = acceptance.ScoredTracks(size, points + np.float32(2), seen, points, seen)
    with pytest.raises(VditrackError) as refused:
        acceptance.compare_attention(window, cached, accept=False)
    assert 'attention "cached" moves the median point by 2.83 pixels' in str(refused.value)
    assert "--attention window, or --accept" in str(refused.value)
    assert acceptance.compare_attention(window, cached, accept=True).accepted
    assert not acceptance.compare_attention(window, window, accept=False).accepted


@pytest.mark.slow
def test_tracks_decide_whether_keys_may_be_cached(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The export compares them with tracks of whole windows, and the bundle says how they do."""
    monkeypatch.setattr(acceptance, "MAX_MOVE", -1.0)
    card, output = save_card(tmp_path, TINY_CARD), tmp_path / "bundle"
    given = (card, "--weights", tiny_checkpoint, "-o", output, "--attention", "cached")
    done = run_export(*given, "--accept")
    assert done.exception is None, done.output
    manifest = load_bundle(output).manifest
    check = manifest.attention_check
    assert check is not None
    assert check.accepted
    assert manifest.input.attention == "cached"
    assert (check.height, check.width, check.window_frames) == (32, 48, 4)
    # Cached keys are not those of whole windows, whose tracks are other ones.
    assert check.median_move > 0
    assert f"the median point moves by {check.median_move:.3f} pixels" in done.output
    assert "beyond the limits but accepted" in done.output
    assert ACCEPTANCE in manifest.files
    inspect(output)
    assert "average jaccard window" in capsys.readouterr().out
