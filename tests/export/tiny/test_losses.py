"""The losses of a student, by hand."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vditrack_export.tiny.losses import (  # noqa: E402
    Softness,
    bilinear_target,
    compare_frames,
    hint_loss,
    known_motion_losses,
    matching_loss,
    teacher_matching_loss,
    trivial_denoising,
)


def test_a_bilinear_target_splits_a_point_among_its_four_cells() -> None:
    target = bilinear_target(torch.tensor([[1.25, 0.5]]), rows=2, columns=4)
    expected = [[0, 0.375, 0.125, 0], [0, 0.375, 0.125, 0]]
    torch.testing.assert_close(target.view(2, 4), torch.tensor(expected))


def test_a_bilinear_target_beyond_the_outermost_centres_is_the_outermost_cell() -> None:
    target = bilinear_target(torch.tensor([[-0.4, 5.0]]), rows=3, columns=2)
    torch.testing.assert_close(target.view(3, 2), torch.tensor([[0.0, 0], [0, 0], [1, 0]]))


def softmax_loss(cosines: list[float], wanted: int) -> float:
    exponentials = [math.exp(cosine / 0.05) for cosine in cosines]
    return -math.log(exponentials[wanted] / sum(exponentials))


def test_the_matching_loss_is_that_of_a_softmax_over_cells_and_nowhere() -> None:
    cosines = [0.3, 0.9, -0.2]
    seen, hidden = torch.tensor([[0.0, 1, 0]]), torch.zeros(1, 3)
    nowhere = torch.tensor(0.6)
    found = matching_loss(torch.tensor([cosines]), seen, nowhere)
    lost = matching_loss(torch.tensor([cosines]), hidden, nowhere)
    torch.testing.assert_close(found, torch.tensor([softmax_loss([*cosines, 0.6], 1)]))
    torch.testing.assert_close(lost, torch.tensor([softmax_loss([*cosines, 0.6], 3)]))


def test_a_hidden_point_pushes_the_best_cosine_down_and_nowhere_up() -> None:
    cosines, nowhere = torch.tensor([[0.3, 0.9, -0.2]]), torch.tensor(0.6)
    cosines.requires_grad_(True)
    nowhere.requires_grad_(True)
    matching_loss(cosines, torch.zeros(1, 3), nowhere).sum().backward()
    assert cosines.grad is not None and nowhere.grad is not None
    assert cosines.grad.argmax() == 1 and cosines.grad[0, 1] > 19 and nowhere.grad < -19


def test_cosines_of_pairs_are_those_of_points_and_cells_one_by_one() -> None:
    torch.manual_seed(0)
    maps, cells = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 7, 3, 2) * torch.tensor([4.0, 3.0])
    got = compare_frames(maps, cells)
    assert got.shape == (2, 3, 3, 7, 20)
    for clip, source, target, point, cell in ((0, 0, 1, 2, 3), (1, 2, 0, 6, 19), (1, 1, 1, 0, 8)):
        x, y = cells[clip, point, source].tolist()
        left, top = min(int(x), 3), min(int(y), 2)
        right, down = x - left, y - top
        square = maps[clip, source, top : top + 2, left : left + 2]
        above = square[0, 0] * (1 - right) + square[0, 1] * right
        template = above * (1 - down) + down * (square[1, 0] * (1 - right) + square[1, 1] * right)
        wanted = torch.cosine_similarity(template, maps[clip, target, cell // 5, cell % 5], dim=0)
        torch.testing.assert_close(got[clip, source, target, point, cell], wanted)


def test_every_seen_point_is_sought_in_every_other_frame_of_its_clip() -> None:
    torch.manual_seed(0)
    cells, visible = torch.rand(2, 5, 4, 2) * 3, torch.rand(2, 5, 4) < 0.6
    maps, nowhere = torch.randn(2, 4, 4, 4, 8), torch.tensor(0.3)
    cosines = compare_frames(maps, cells)
    seen, hidden = [], []
    for clip, point, source, target in np.ndindex(2, 5, 4, 4):
        if source == target or not visible[clip, point, source]:
            continue
        row = cosines[clip, source, target, point][None]
        if visible[clip, point, target]:
            wanted = bilinear_target(cells[clip, point, target][None], 4, 4)
            seen.append(matching_loss(row, wanted, nowhere))
        else:
            hidden.append(matching_loss(row, torch.zeros(1, 16), nowhere))
    matching, lost = known_motion_losses(maps, cells, visible, nowhere)
    assert seen and hidden
    torch.testing.assert_close(matching, torch.stack(seen).mean())
    torch.testing.assert_close(lost, torch.stack(hidden).mean())


def test_clips_without_hidden_points_lose_nothing_by_them() -> None:
    cells, visible = torch.rand(1, 3, 4, 2), torch.ones(1, 3, 4, dtype=torch.bool)
    maps, nowhere = torch.randn(1, 4, 2, 2, 8), torch.tensor(0.3)
    assert known_motion_losses(maps, cells, visible, nowhere)[1].item() == 0


def probabilities(cosines: list[float], nowhere: float, temperature: float) -> list[float]:
    powers = [math.exp(cosine / temperature) for cosine in [*cosines, nowhere]]
    return [power / sum(powers) for power in powers]


def test_the_teacher_is_matched_by_the_divergence_over_cells_and_nowhere_both_ways() -> None:
    torch.manual_seed(1)
    student = torch.nn.functional.normalize(torch.randn(1, 2, 1, 3, 5), dim=-1)
    teacher = torch.nn.functional.normalize(torch.randn(1, 2, 1, 3, 4), dim=-1)
    soft = Softness(torch.tensor(0.1), torch.tensor(0.4))
    taught = Softness(torch.tensor(0.2), torch.tensor(0.7))
    expected = []
    for source, target, cell in np.ndindex(2, 2, 2):
        found, wanted = (
            probabilities((maps[0, target, 0] @ maps[0, source, 0, cell]).tolist(), nowhere, heat)
            for maps, nowhere, heat in ((student, 0.4, 0.1), (teacher, 0.7, 0.2))
        )
        pairs = zip(wanted, found, strict=True)
        expected.append(sum(w * math.log(w / f) for w, f in pairs))
    cells = torch.tensor([0, 1])
    loss = teacher_matching_loss(student, teacher, soft, taught, cells)
    torch.testing.assert_close(loss, torch.tensor(expected).mean())
    assert teacher_matching_loss(teacher, teacher, taught, taught, cells).abs() < 1e-6


def test_the_hint_is_one_minus_the_cosine() -> None:
    regressed, teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0], [1, 0]])
    torch.testing.assert_close(hint_loss(regressed, teacher), torch.tensor(0.5))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.8])
def test_no_linear_guess_from_one_value_beats_the_trivial_loss(sigma: float) -> None:
    rng = np.random.default_rng(0)
    latent, noise = rng.standard_normal((2, 400_000))
    mixed, wanted = (1 - sigma) * latent + sigma * noise, noise - latent
    best = (mixed @ wanted) / (mixed @ mixed)
    residual = ((wanted - best * mixed) ** 2).mean()
    assert trivial_denoising(sigma) == pytest.approx(residual, rel=0.01)


def test_the_trivial_loss_is_half_pi_over_all_levels() -> None:
    levels = (np.arange(1000) + 0.5) / 1000
    assert np.mean([trivial_denoising(s) for s in levels]) == pytest.approx(np.pi / 2, rel=1e-5)
