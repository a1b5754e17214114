"""Distillation on footage: which clips are taken, sizes by budget, the gate, and user errors."""

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")

from vditrack.bundle.distillation import (  # noqa: E402
    Agreement,
    Distillation,
    Recording,
    read_distillation,
    write_distillation,
)
from vditrack.cli.app import build_app  # noqa: E402
from vditrack.errors import BundleError, InputError, VditrackError  # noqa: E402
from vditrack_export.card import load_card  # noqa: E402
from vditrack_export.card_changes import change_card  # noqa: E402
from vditrack_export.distillation import footage, gate, sizes  # noqa: E402
from vditrack_export.families.tiny.shapes import Convolutions  # noqa: E402
from vditrack_export.tiny.clip_store import ClipStore  # noqa: E402
from vditrack_export.tiny.identity import keep_identity  # noqa: E402
from vditrack_export.tiny.model import BUNDLED  # noqa: E402
from vditrack_export.tiny.teacher import Teacher  # noqa: E402


class FrameNumbers(Teacher):
    """Reads the number of a frame from its first pixel; a video model if it reads between."""

    name, sha256, channels = "numbers", "0" * 64, 2

    def __init__(self, *, reads_between: bool, temporal_stride: int) -> None:
        self.reads_between, self.temporal_stride = reads_between, temporal_stride
        self.lengths: list[int] = []

    def describe(self, frames: Any) -> Any:
        self.lengths.append(len(frames))
        numbers = torch.from_numpy(frames[:, 0, 0, 0].astype(np.float32))
        cells = torch.stack([numbers, torch.full_like(numbers, 10.0)], dim=-1)
        return cells[:, None, None].expand(-1, 3, 4, -1)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of recordings whose frames are grey by their number."""
    root = tmp_path_factory.mktemp("footage")
    for name, count in (("long", 40), ("less", 16), ("short", 3)):
        (root / name).mkdir()
        for number in range(count):
            image = np.full((24, 32, 3), number, np.uint8)
            cv2.imwrite(str(root / name / f"{number:03}.png"), image)
    return root


def ignore(_done: int, _all: int) -> None:
    """Report nothing."""


def test_clips_come_from_all_footage_evenly_and_fit_into_it(recordings: Path) -> None:
    surveyed = footage.survey_footage([str(recordings)], ignore)
    assert [each.recording.frames for each in surveyed] == [16, 40]
    for stride in (1, 4):
        clips = footage.plan_clips(surveyed, 56, stride, seed=0)
        assert clips == footage.plan_clips(surveyed, 56, stride, seed=0)
        assert [clip.footage for clip in clips].count(1) == 40
        for clip in clips:
            assert clip.first >= 0 and clip.last < surveyed[clip.footage].recording.frames
            assert clip.gap % stride == 0
        assert len({clip.gap for clip in clips}) > 1
        assert clips != footage.plan_clips(surveyed, 56, stride, seed=1)


@pytest.mark.parametrize("between", [False, True])
def test_stored_clips_have_the_frames_and_their_descriptors(
    recordings: Path, tmp_path: Path, between: bool
) -> None:
    surveyed = footage.survey_footage([str(recordings)], ignore)
    teacher = FrameNumbers(reads_between=between, temporal_stride=4)
    clips = footage.plan_clips(surveyed, 18, 4, seed=0)
    store = ClipStore(tmp_path / "footage", 18)
    footage.store_footage(store, surveyed, clips, teacher, (16, 24), ignore)
    for number, clip in enumerate(clips):
        kept, wanted = store.read(number), np.arange(clip.first, clip.last + 1, clip.gap)
        np.testing.assert_array_equal(kept.frames[:, 0, 0, 0], wanted)
        assert kept.frames.shape == (4, 16, 24, 3) and kept.teacher.shape == (4, 2, 3, 2)
        ratio = kept.teacher[:, 0, 0, 0].astype(np.float32) / kept.teacher[:, 0, 0, 1]
        np.testing.assert_allclose(ratio, wanted / 10, rtol=5e-3)
    assert teacher.lengths == [3 * clip.gap + 1 if between else 4 for clip in clips]


def test_a_killed_cache_of_footage_goes_on_with_the_next_shard(
    recordings: Path, tmp_path: Path
) -> None:
    surveyed = footage.survey_footage([str(recordings)], ignore)
    clips = footage.plan_clips(surveyed, 20, 1, seed=0)
    whole, killed = (ClipStore(tmp_path / name, 20) for name in ("whole", "killed"))
    teacher = FrameNumbers(reads_between=False, temporal_stride=1)
    footage.store_footage(whole, surveyed, clips, teacher, (16, 24), ignore)

    def stop(done: int, _all: int) -> None:
        if done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        footage.store_footage(killed, surveyed, clips, teacher, (16, 24), stop)
    assert killed.missing() == [1]
    teacher.lengths.clear()
    footage.store_footage(killed, surveyed, clips, teacher, (16, 24), ignore)
    assert len(teacher.lengths) == 4 and killed.verify() == whole.verify()


def test_footage_without_enough_frames_is_refused(recordings: Path) -> None:
    with pytest.raises(InputError, match="4 frames"):
        footage.survey_footage([str(recordings / "short")], ignore)


def test_a_run_is_not_continued_as_another_one(tmp_path: Path) -> None:
    keep_identity(tmp_path / "run", {"teacher": "a", "--seed": "0"})
    keep_identity(tmp_path / "run", {"teacher": "a", "--seed": "0"})
    with pytest.raises(InputError, match="other teacher and --seed"):
        keep_identity(tmp_path / "run", {"teacher": "b", "--seed": "1"})


def test_the_bundled_model_is_a_rung_of_the_ladder() -> None:
    card = load_card("tiny")
    assert sizes.make_shape(BUNDLED.widths[0]) == BUNDLED and BUNDLED.widths[0] in sizes.WIDTHS
    own = sizes.make_card(card, BUNDLED)
    assert (own.transformer, own.encoder, own.feature) == (
        card.transformer,
        card.encoder,
        card.feature,
    )


@pytest.mark.slow
def test_the_largest_student_within_the_budget_is_chosen() -> None:
    card = change_card(load_card("tiny"), size="128x96")
    counts = {
        width: sizes.count_operations(sizes.make_card(card, sizes.make_shape(width)))
        for width in sizes.WIDTHS[:3]
    }
    assert list(counts.values()) == sorted(counts.values())
    exact = sizes.choose_shape(card, sizes.Budget(operations=counts[sizes.WIDTHS[1]]))
    assert exact.widths[0] == sizes.WIDTHS[1]
    # A device with operations for thousands of frames a second takes the largest.
    device = sizes.choose_shape(card, sizes.parse_budget("orin-nx@30"))
    assert device.widths[0] == sizes.WIDTHS[-1]
    with pytest.raises(InputError, match="the smallest student takes"):
        sizes.choose_shape(card, sizes.Budget(operations=1e6))


def test_the_operations_of_an_encoder_are_those_counted_by_hand() -> None:
    shape = sizes.make_shape(8)
    card = sizes.make_card(change_card(load_card("tiny"), size="64x64"), shape)
    assert isinstance(card.encoder, Convolutions)
    assert card.encoder.widths == (8, 16) and card.encoder.context == (32, 48)
    assert sizes.coarsest_cell(shape) == 32
    # Multiply-adds of an output cell: kernel area x channels in x channels out.
    first = 16 * 16 * (64 * 3 * 8 + 2 * 9 * 8 * 8)
    second = 8 * 8 * (16 * 8 * 16 + 4 * 9 * 16 * 16)
    third = 4 * 4 * (16 * 16 * 32 + 4 * 9 * 32 * 32 + 32 * 16)
    fourth = 2 * 2 * (16 * 32 * 48 + 4 * 9 * 48 * 48 + 48 * 32)
    head = 8 * 8 * (2 * 9 * 16 * 16 + 16 * 16)
    from vditrack_export.plan.pipeline import graph_costs  # noqa: PLC0415
    from vditrack_export.plan.settings import card_setting  # noqa: PLC0415

    graphs = graph_costs(card, card_setting(card), 1, sizes._FP32, "attention")
    assert graphs.encoder.operations == 2 * (first + second + third + fourth + head)


@pytest.mark.parametrize("text", ["fast", "orin-nx@", "@30", "0", "-3", "nan", "orin-nx@inf"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"budget|device"):
        sizes.parse_budget(text)


def agreement(**changes: Any) -> Agreement:
    numbers: dict[str, Any] = {
        "clips": 4,
        "matches_teacher": 50.0,
        "matches": 46.0,
        "found_again_teacher": 80.0,
        "found_again": 73.0,
        "average_jaccard_teacher": 85.0,
        "average_jaccard": 82.5,
        "accepted": False,
    }
    return Agreement(**{**numbers, **changes})


def test_the_gate_passes_what_keeps_nine_tenths_and_says_what_does_not() -> None:
    gate.require_kept(agreement(), "remedy")
    gate.require_kept(agreement(found_again_teacher=None, average_jaccard_teacher=None), "remedy")
    for name, value, said in (
        ("matches", 44.0, "88% kept"),
        ("found_again", 71.0, "89% kept"),
        ("average_jaccard", 81.0, "85.0 to 81.0"),
        ("matches", float("nan"), "matches nan%"),
    ):
        with pytest.raises(VditrackError, match=said):
            gate.require_kept(agreement(**{name: value}), "remedy")


def test_what_a_bundle_says_of_its_teacher_is_read_back(tmp_path: Path) -> None:
    said = Distillation(
        teacher="big",
        teacher_sha256="a" * 64,
        footage=(Recording(name="kitchen.mp4", frames=250_000, sha256="b" * 64),),
        footage_clips=64,
        rendered_clips=64,
        steps=60_000,
        seed=0,
        agreement=agreement(),
    )
    assert read_distillation(tmp_path) is None
    write_distillation(tmp_path, said)
    assert read_distillation(tmp_path) == said
    (tmp_path / "distillation.json").write_bytes(msgspec.json.encode({"teacher": "big"}))
    with pytest.raises(BundleError, match="cannot be read"):
        read_distillation(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "100x96"], "100"),
        (["--budget", "slow"], "no budget"),
        ([], "there is no teacher"),
    ],
)
def test_mistakes_of_the_user_are_named(options: list[str], said: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "none"), "--videos", str(tmp_path), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(build_app(), ["distill", *arguments, *options])
    assert isinstance(result.exception, VditrackError) and said in str(result.exception)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.run").exists()
