"""`vditrack export` from folders as diffusers pipelines save them, small and random."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel as Umt5EncoderModel

from doubles.pipelines import (
    FAMILY_SECTIONS,
    TEXT_TOKENS,
    ExportedPipelines,
    card_text,
    make_autoencoder,
    make_tokenizer,
    make_transformer,
    moving_clip,
    run_export,
    save_pipeline,
)
from vditrack import Tracker, VditrackError
from vditrack.bundle.folder import Bundle, load_bundle
from vditrack_export.card import load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.empty_prompt import empty_prompt

pytestmark = pytest.mark.slow


ONE_FAMILY = pytest.mark.parametrize("family", ["wan"], scope="module")
"""For what export does before and after a family makes its graphs."""


@pytest.fixture(scope="module", params=FAMILY_SECTIONS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(family: str, exported_pipelines: ExportedPipelines) -> Path:
    return exported_pipelines.checkpoint(family)


@pytest.fixture
def card(family: str, tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(card_text(family))
    return path


def test_a_bundle_that_tracks(family: str, exported_pipelines: ExportedPipelines) -> None:
    check_bundle(exported_pipelines.bundle(family), family, stride=1)


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
def test_a_bundle_with_temporal_compression(
    name: str, exported_pipelines: ExportedPipelines, tmp_path: Path
) -> None:
    """Cosmos reads latents of Wan's encoder; `test_wan_and_cogvideox_builds` has its graphs."""
    checkpoint, card = exported_pipelines.checkpoint(name), tmp_path / "small.toml"
    card.write_text(card_text(name))
    assert len(list((checkpoint / "transformer").glob("*.safetensors"))) > 1
    output = tmp_path / "bundle"
    done = run_export(
        card, "--weights", checkpoint, "-o", output, "--temporal-stride", "4", "--json"
    )
    assert done.exception is None, done.exception
    bundle = load_bundle(output)
    assert json.loads(done.stdout)["parity"] == bundle.manifest.parity
    check_bundle(bundle, name, stride=4)


def check_bundle(bundle: Bundle, family: str, stride: int) -> None:
    manifest = bundle.manifest
    assert set(manifest.parity) == {"encoder_vs_original", "features_vs_full_model"}
    assert max(manifest.parity.values()) <= 1e-4
    assert manifest.source.random_weights is False
    carries = family != "cogvideox"
    assert manifest.encoder.frames == (stride if carries else 5)
    assert ("encoder_start.onnx" in manifest.files) == (carries and stride == 4)
    tracks = Tracker.load(bundle.root).track(moving_clip(7), [[0, 40, 30], [3, 60, 40]])
    assert tracks.points.shape == (2, 7, 2)
    assert np.isfinite(tracks.points).all()


@ONE_FAMILY
def test_sizes_and_places_of_the_command_line(card: Path, tmp_path: Path) -> None:
    options = ("--size", "48x32", "--frames", "3", "--described", "1", "--block", "0")
    done = run_export(
        card, "--random-weights", "-o", tmp_path / "b", *options, "--heads", "1,0", "--json"
    )
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    given = {
        "height": 32,
        "width": 48,
        "frames": 3,
        "described_frames": 1,
        "temporal_stride": 1,
        "overlap": 1,
        "attention": "window",
    }
    assert told["input"] == given
    assert (told["source"]["block"], told["source"]["heads"]) == (0, [1, 0])


@ONE_FAMILY
def test_a_long_window_is_proved_on_a_small_one(
    card: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vditrack_export.pipeline.parity._TOKENS", 10)
    done = run_export(card, "--weights", checkpoint, "-o", tmp_path / "b", "--json")
    assert done.exception is None, done.exception
    names = set(json.loads(done.stdout)["parity"])
    assert names == {"encoder_vs_original_at_64x96x3", "features_vs_full_model_at_64x96x3"}


def test_the_empty_prompt_is_the_pipelines(tmp_path: Path) -> None:
    folder, card = save_pipeline(tmp_path, "wan"), tmp_path / "small.toml"
    card.write_text(card_text("wan"))
    encoder = Umt5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    pipeline = WanPipeline(
        make_tokenizer(), encoder, make_autoencoder("wan"), None, make_transformer("wan")
    )
    expected = pipeline._get_t5_prompt_embeds("", max_sequence_length=TEXT_TOKENS)[0].float()
    found = empty_prompt(load_card(str(card)), Weights(folder))
    assert torch.equal(found, expected)
    assert found[1:].abs().max() == 0


@ONE_FAMILY
def test_a_stored_prompt_is_used_again(
    family: str, card: Path, exported_pipelines: ExportedPipelines, tmp_path: Path
) -> None:
    first, kept = exported_pipelines.bundle(family), tmp_path / "prompt.safetensors"
    shutil.copy(exported_pipelines.prompt(family), kept)
    checkpoint, alone = exported_pipelines.checkpoint(family), tmp_path / "alone"
    shutil.copytree(checkpoint, alone, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    refused = run_export(card, "--weights", alone, "-o", tmp_path / "b")
    assert "lacks tokenizer" in str(refused.exception)
    second = run_export(card, "--weights", alone, "-o", tmp_path / "b", "--prompt", kept)
    assert second.exception is None, second.exception
    assert (tmp_path / "b" / "features.onnx").read_bytes() == first.features.read_bytes()
    save_file({"prompt": load_file(kept)["prompt"] + 1}, kept, {"sha256": "0" * 64})
    altered = run_export(card, "--weights", alone, "-o", tmp_path / "c", "--prompt", kept)
    assert "was altered" in str(altered.exception)


def _rewrite(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: shutil.rmtree(path / "vae"), "lacks vae/config.json"),
        (lambda path: shutil.rmtree(path / "transformer"), "lacks transformer/config.json"),
        (
            lambda path: min((path / "transformer").glob("*-of-*.safetensors")).unlink(),
            "lacks transformer/diffusion_pytorch_model-00001",
        ),
        (_rewrite("transformer/config.json", num_layers=9), "has num_layers 9, the card 3"),
        (_rewrite("vae/config.json", latent_channels=9, z_dim=9), "9, the card 4"),
        (_rewrite("vae/config.json", _class_name="AutoencoderKL"), "describes a AutoencoderKL"),
    ],
)
def test_another_models_folder_is_refused(
    card: Path, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    damage(folder)
    before = sorted(tmp_path.iterdir())
    done = run_export(card, "--weights", folder, "-o", tmp_path / "bundle")
    assert isinstance(done.exception, VditrackError), done.exception
    assert complaint in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "either --weights DIR or --random-weights"),
        (("--random-weights", "--weights", "x"), "either --weights DIR or --random-weights"),
        (("--random-weights", "--size", "64"), "--size 64 is not WIDTHxHEIGHT"),
        (("--random-weights", "--size", "32x48"), "WIDTHxHEIGHT: give --size 48x32"),
        (("--random-weights", "--size", "64x96"), "WIDTHxHEIGHT: give --size 96x64"),
        (("--random-weights", "--size", "96x60"), "does not divide into cells"),
        (("--random-weights", "--heads", "a"), "--heads a is not a list"),
        (("--random-weights", "--heads", "2"), "heads are not the transformer's"),
        (("--random-weights", "--block", "3"), "block is not one of"),
        (("--random-weights", "--temporal-stride", "4", "--frames", "6"), "1 + a multiple of"),
        (
            ("--random-weights", "--frames", "5", "--described", "9"),
            "--described 9: a window has 5 frames",
        ),
    ],
)
def test_options_that_make_no_sense(
    card: Path, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    done = run_export(card, "-o", tmp_path / "bundle", *options)
    assert isinstance(done.exception, VditrackError), done.exception
    assert complaint in str(done.exception)
