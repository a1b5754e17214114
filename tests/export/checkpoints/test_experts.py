"""Checkpoints with one transformer for high noise and one for low noise, as Wan 2.2 A14B."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from doubles.pipelines import make_transformer, run_export
from vditrack.bundle.folder import load_bundle
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.checkpoint import load_checkpoint


@pytest.fixture
def experts(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that the pipeline of Wan 2.2 saved; the card reads timestep 100 of 1000."""
    torch.manual_seed(5)
    pipeline = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLWan.from_pretrained(checkpoint / "vae"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=WanTransformer3DModel.from_pretrained(checkpoint / "transformer"),
        transformer_2=make_transformer("wan"),
        boundary_ratio=0.875,
    )
    pipeline.save_pretrained(tmp_path / "experts")
    for name in ("tokenizer", "text_encoder"):
        (checkpoint / name).rename(tmp_path / "experts" / name)
    return tmp_path / "experts"


def transformer_of(folder: Path, card: Card, **options: Any) -> str:
    """Return the folder of the transformer whose weights are loaded."""
    found = load_checkpoint(card, Weights(folder), **options).transformer.state_dict()
    same = []
    for component in ("transformer", "transformer_2"):
        model = WanTransformer3DModel.from_pretrained(folder / component).state_dict()
        if all(torch.equal(weight, model[name]) for name, weight in found.items()):
            same.append(component)
    assert len(same) == 1
    return same[0]


@pytest.mark.parametrize(
    ("timestep", "component"),
    [(100.0, "transformer_2"), (874.9, "transformer_2"), (875.0, "transformer")],
)
def test_the_timestep_chooses(experts: Path, card: Card, timestep: float, component: str) -> None:
    assert transformer_of(experts, card, timesteps=[timestep]) == component


def test_steps_on_both_sides_have_no_one_transformer(experts: Path, card: Card) -> None:
    with pytest.raises(InputError, match=r"timesteps 50 to 900 lie on both sides"):
        load_checkpoint(card, Weights(experts), [900.0, 50.0])
    high = load_checkpoint(card, Weights(experts, expert="high"), [900.0, 50.0])
    assert high.expert == "high"


def test_a_checkpoint_that_does_not_say_asks(experts: Path, card: Card) -> None:
    index = experts / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"boundary_ratio": None}))
    with pytest.raises(InputError, match=r"no boundary_ratio .* Give --expert high"):
        load_checkpoint(card, Weights(experts))
    index.unlink()
    with pytest.raises(InputError, match=r"no boundary_ratio"):
        load_checkpoint(card, Weights(experts))
    assert load_checkpoint(card, Weights(experts, expert="low")).expert == "low"


def test_a_checkpoint_with_one_refuses_the_choice(checkpoint: Path, card: Card) -> None:
    with pytest.raises(InputError, match=r"--expert low: .* has one transformer"):
        load_checkpoint(card, Weights(checkpoint, expert="low"))
    # Wan 2.1 saved by today's diffusers.
    (checkpoint / "model_index.json").write_text('{"transformer_2": [null, null]}')
    found = load_checkpoint(card, Weights(checkpoint))
    assert (found.expert, found.notes) == (None, ())


@pytest.mark.slow
def test_the_choice_is_told_and_kept(experts: Path, card_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    done = run_export(card_file, "--weights", experts, "-o", output)
    assert done.exception is None, done.exception
    note = "expert for low noise (transformer_2): timestep 100 is below the boundary 875"
    assert note in " ".join(done.stderr.split())
    assert load_bundle(output).manifest.source.expert == "low"
    assert "transformer for low noise" in done.stdout
