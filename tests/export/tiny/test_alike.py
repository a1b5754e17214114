"""ALIKE-L as a teacher: its layers by another formulation, its cells, and files that are not it."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from vditrack.errors import InputError  # noqa: E402
from vditrack_export.tiny.alike import Alike, load_alike  # noqa: E402
from vditrack_export.tiny.teacher import AlikeTeacher  # noqa: E402


@pytest.fixture(scope="module")
def model() -> Alike:
    torch.manual_seed(0)
    return Alike().eval()


def describe_plainly(model: Alike, x: torch.Tensor) -> torch.Tensor:
    """Compute all levels at full size by PyTorch's own enlargement."""
    size, levels = x.shape[-2:], []
    for number, pooling in enumerate((1, 2, 4, 4), start=1):
        block = model.get_submodule(f"block{number}")
        x = functional.max_pool2d(x, pooling)
        inner = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x)))))
        x = functional.relu(inner if number == 1 else inner + block.downsample(x))
        reduced = functional.relu(model.get_submodule(f"conv{number}")(x))
        levels.append(functional.interpolate(reduced, size, mode="bilinear", align_corners=True))
    hidden = functional.relu(model.convhead1(torch.cat(levels, dim=1)))
    return functional.normalize(model.convhead2(hidden)[:, :128], dim=1)


def test_descriptors_are_those_of_levels_enlarged_with_aligned_corners(model: Alike) -> None:
    frames = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        wanted = describe_plainly(model, frames)
        torch.testing.assert_close(model(frames), wanted)
        cells = wanted.view(1, 128, 8, 8, 12, 8)[:, :, :, [0, 3, 4, 7]][..., [0, 3, 4, 7]]
        torch.testing.assert_close(model.describe_cells(frames), cells.mean(dim=(3, 5)))


def test_the_teacher_reads_its_weights_and_keeps_what_they_describe(
    model: Alike, tmp_path: Path
) -> None:
    path = tmp_path / "alike-l.safetensors"
    save_file(model.state_dict(), path)
    teacher = AlikeTeacher(path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    described = teacher.describe(frames)
    assert described.shape == (2, 8, 8, 128)
    with torch.no_grad():
        wanted = model.describe_cells(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
    alike = torch.cosine_similarity(described, wanted.permute(0, 2, 3, 1), dim=-1)
    assert alike.min() > 0.99


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="does not hold the weights of ALIKE-L"):
        load_alike(path)
