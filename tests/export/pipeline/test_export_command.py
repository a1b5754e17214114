"""``vditrack export`` end to end on a random checkpoint, and what it refuses."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from doubles.cards import save_card
from doubles.pipelines import ExportedBundle, run_export
from doubles.tiny_checkpoint import TINY_CARD, make_tiny_transformer
from vditrack.acceptance import CLIPS, POINTS, load_acceptance_tracks, verify_tracks
from vditrack.bundle.folder import ACCEPTANCE, MANIFEST, load_bundle
from vditrack.errors import InputError, VditrackError, install_command
from vditrack.inference.onnxruntime import OnnxRuntimeSession, open_session
from vditrack_export.card import load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.transformer_denoiser import TransformerDenoiser
from vditrack_export.pipeline import onnx_export as graph_module
from vditrack_export.pipeline.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

WEIGHTS = "vdit/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def one_acceptance_clip() -> None:
    """Track all acceptance clips, where other tests of exports track one."""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return save_card(tmp_path, TINY_CARD)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def run(card: Path | str, weights: Path, output: Path, *options: str) -> Any:
    return run_export(card, "--weights", weights, "-o", output, *options)


def refusal(card: Path | str, weights: Path, output: Path) -> str:
    """The error's text, after a look that nothing was left behind."""
    before = sorted(output.parent.iterdir())
    result = run(card, weights, output)
    assert isinstance(result.exception, VditrackError), result.exception
    assert sorted(output.parent.iterdir()) == before
    return str(result.exception)


def test_the_bundle_loads_and_runs(exported_points: ExportedBundle) -> None:
    bundle, manifest = exported_points.bundle, exported_points.bundle.manifest
    written = json.loads((bundle.root / MANIFEST).read_text())
    assert exported_points.printed["files"] == written["files"]
    assert sorted(path.name for path in bundle.root.parent.iterdir()) == ["bundle"]
    assert manifest.source.heads == (1, 0)
    assert (manifest.output.rows, manifest.output.columns, manifest.output.stride) == (4, 6, 8)
    assert set(manifest.parity) == {"encoder_vs_original", "features_vs_full_model"}
    assert all(0 < error <= 1e-5 for error in manifest.parity.values())
    assert {"python", "vditrack", "torch", "diffusers", "onnx", "onnxruntime"} <= set(
        manifest.tools
    )
    encoder, features = OnnxRuntimeSession(bundle.encoder), OnnxRuntimeSession(bundle.features)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
    groups = [encoder.run({"frames": frames[i : i + 1]})["latents"] for i in range(4)]
    descriptors = features.run({"latents": np.concatenate(groups, axis=2)})["descriptors"]
    assert descriptors.dtype == np.float32
    assert descriptors.shape == (4, 4, 6, manifest.output.channels)
    assert np.isfinite(descriptors).all()
    # What torch tracked at export, ONNX Runtime tracks as well.
    assert verify_tracks(bundle, open_session, "here").median_move < 0.05


def test_a_bundle_is_replaced_and_digests_follow_the_weights(
    card: Path, checkpoint: Path, exported_points: ExportedBundle, tmp_path: Path
) -> None:
    output, first = tmp_path / "bundle", exported_points.bundle.manifest
    shutil.copytree(exported_points.bundle.root, output)
    make_tiny_transformer(seed=2).save_pretrained(checkpoint / "vdit")
    assert run(card, checkpoint, output).exception is None
    assert len(load_acceptance_tracks(load_bundle(output)).points) == CLIPS * POINTS
    second = load_bundle(output).manifest
    assert first.source.checkpoint_sha256 != second.source.checkpoint_sha256
    assert first.files["encoder.onnx"] == second.files["encoder.onnx"]
    assert first.files["features.onnx"] != second.files["features.onnx"]


def test_weights_too_large_for_one_file(
    card: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_LARGEST_EMBEDDED_WEIGHTS", 0)
    assert run(card, checkpoint, tmp_path / "bundle").exception is None
    bundle = load_bundle(tmp_path / "bundle")
    graphs = {"encoder.onnx", "features.onnx"}
    assert set(bundle.manifest.files) - {ACCEPTANCE} == graphs | {f"{name}.data" for name in graphs}
    assert OnnxRuntimeSession(bundle.features).outputs["descriptors"].shape[0] == 4


def test_weights_in_shards(card: Path, checkpoint: Path) -> None:
    whole = load_checkpoint(load_card(str(card)), Weights(checkpoint))
    original = make_tiny_transformer()
    original.load_state_dict(load_file(checkpoint / WEIGHTS))
    (checkpoint / WEIGHTS).unlink()
    original.save_pretrained(checkpoint / "vdit", max_shard_size="200KB")
    assert len(list((checkpoint / "vdit").glob("*.safetensors"))) > 1
    sharded = load_checkpoint(load_card(str(card)), Weights(checkpoint))
    # Blocks above the card's are not even read.
    assert len(whole.transformer.blocks) == 2
    for name, weights in whole.transformer.state_dict().items():
        assert torch.equal(weights, sharded.transformer.state_dict()[name])
    assert sharded.sha256 != whole.sha256


def _rewrite(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


def _cut_short(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])

    return damage


def _other_transformer(**changes: int) -> Callable[[Path], None]:
    return lambda checkpoint: make_tiny_transformer(**changes).save_pretrained(checkpoint / "vdit")


def _spoil(name: str, tensor: str, value: float) -> Callable[[Path], None]:
    """Set the first number of a tensor, or of a new tensor."""

    def damage(checkpoint: Path) -> None:
        weights = load_file(checkpoint / name)
        weights.setdefault(tensor, torch.zeros(2)).view(-1)[0] = value
        save_file(weights, checkpoint / name)

    return damage


DEEP = 100_000 * "["


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            _spoil(WEIGHTS, "blocks.0.attn1.to_k.weight", math.nan),
            "the tensor blocks.0.attn1.to_k.weight has 1 of 4096 numbers that are NaN",
        ),
        (_spoil("encoder.safetensors", "head.bias", -math.inf), "the tensor head.bias has 1 of 24"),
        (_spoil(WEIGHTS, "scale", 1.0), "scale is not wanted (1 in all)"),
        (lambda path: (path / "vdit/config.json").write_text(DEEP), "nested more than 64 levels"),
        (lambda path: (path / "encoder.json").unlink(), "lacks encoder.json"),
        (lambda path: (path / "encoder.safetensors").unlink(), "lacks encoder.safetensors"),
        (lambda path: (path / "vdit/config.json").unlink(), "lacks vdit/config.json"),
        (lambda path: (path / WEIGHTS).unlink(), f"lacks {WEIGHTS}"),
        (_cut_short("encoder.safetensors"), "encoder of checkpoint"),
        (_cut_short("encoder.json"), "encoder of checkpoint"),
        (_rewrite("encoder.json", latents=16), "encoder of checkpoint"),
        (_cut_short(WEIGHTS), "does not load"),
        (_cut_short("vdit/config.json"), "config.json is not a JSON object"),
        (_rewrite("vdit/config.json", _class_name="UNet2DModel"), "describes a UNet2DModel"),
        (_rewrite("vdit/config.json", num_layers=4), "has num_layers 4, the card 3"),
        (_rewrite("vdit/config.json", ffn_dim=32), "has ffn_dim 32, the card 64"),
        (_rewrite("vdit/config.json", cross_attn_norm=False), "norm2"),
        (_rewrite("vdit/config.json", rope_max_seq_len="long"), "does not load"),
        (lambda path: (path / f"{WEIGHTS}.index.json").write_text("{}"), "not an index"),
        (
            lambda path: (path / f"{WEIGHTS}.index.json").write_text(
                json.dumps({"weight_map": {"x": "shard-2.safetensors"}})
            ),
            "lacks vdit/shard-2.safetensors",
        ),
        (_other_transformer(num_layers=1), "has num_layers 1, the card 3"),
        (_other_transformer(num_attention_heads=1), "has num_attention_heads 1, the card 2"),
        (_other_transformer(in_channels=16), "has in_channels 16, the card 24"),
        (_other_transformer(rope_max_seq_len=5), "longer than the transformer's 5 positions"),
        (_other_transformer(image_dim=8), "wants an image beside the prompt"),
    ],
)
def test_another_models_checkpoint_is_refused(
    card: Path, checkpoint: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(checkpoint)
    message = refusal(card, checkpoint, card.parent / "bundle")
    assert complaint in message
    assert str(checkpoint) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("block = 1", 'block = "1"', "$.feature.block"),
        ("block = 1", "block = -1", "$.feature.block"),
        ("block = 1", "", "block"),
        ("block = 1", "block = 1\nblocks = 2", "blocks"),
        ("[1, 0]", "[1, 1]", "one head twice"),
        ("[1, 0]", "[]", "$.feature.heads"),
        ("[0.4, 1.0]", "[0.4, 0.4]", "is empty"),
        ("[0.4, 1.0]", "[0.4, 1.5]", "$.feature.frequency_range"),
        ("[0.4, 1.0]", "[0.9, 0.95]", "keeps no channel"),
        ("height = 32", "height = 36", "do not divide into cells of 8"),
        ("described_frames = 4", "described_frames = 5", "described_frames is more than"),
        ("block = 1", "block = 3", "block is not one of"),
        ("[1, 0]", "[1, 2]", "heads are not"),
        ("latent_channels = 24", "latent_channels = 16", "latent_channels of the encoder"),
        ('kind = "convolutions"', 'kind = "fourier"', "$.encoder"),
        ('family = "wan"', 'family = "unet"', "$.transformer.family"),
        ('name = "small"', "name = ", "Invalid value"),
        ('name = "small"', f"name = {DEEP}", "nested more than 64 levels"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    card: Path, checkpoint: Path, old: str, new: str, complaint: str
) -> None:
    assert old in TINY_CARD
    card.write_text(TINY_CARD.replace(old, new, 1))
    assert complaint in refusal(card, checkpoint, card.parent / "bundle")


def test_a_card_that_is_not_there(checkpoint: Path, tmp_path: Path) -> None:
    assert "wan2.1-t2v-1.3b" in refusal("huge", checkpoint, tmp_path / "bundle")
    assert "cannot be read" in refusal(tmp_path / "no.toml", checkpoint, tmp_path / "bundle")


def test_weights_that_are_not_there(card: Path, tmp_path: Path) -> None:
    assert "no checkpoint folder" in refusal(card, tmp_path / "nothing", tmp_path / "bundle")


def test_what_is_no_bundle_is_not_replaced(card: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert "will not be replaced" in refusal(card, checkpoint, checkpoint)
    assert "is a file" in refusal(card, checkpoint, card)
    assert (checkpoint / "encoder.json").is_file()
    assert card.read_text() == TINY_CARD


def test_a_disk_without_room_is_refused_before_graphs_are_written(
    card: Path,
    checkpoint: Path,
    exported_points: ExportedBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = sum(record.size for record in exported_points.bundle.manifest.files.values())
    free = SimpleNamespace(free=size // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert "the bundle takes about 0.0009" in refusal(card, checkpoint, tmp_path / "bundle")
    free.free = size
    assert run(card, checkpoint, tmp_path / "bundle").exception is None


def test_a_graph_that_differs_leaves_nothing(
    card: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = TransformerDenoiser.read_whole
    monkeypatch.setattr(TransformerDenoiser, "read_whole", lambda *a: correct(*a) * 1.0001)
    message = refusal(card, checkpoint, tmp_path / "bundle")
    assert "features.onnx differs from the model" in message


def test_verbs_and_cards_need_no_torch() -> None:
    code = (
        "import sys, vditrack_export.card as cards;"
        "from importlib.metadata import entry_points;"
        "verbs = [verb.load() for verb in entry_points(group='vditrack.commands')];"
        "assert len(verbs) == 6; cards.load_card('tiny');"
        "assert not {'torch', 'diffusers', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_remedy_is_named(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in ("export", "backbone"):
        monkeypatch.delitem(sys.modules, f"vditrack_export.pipeline.{module}", raising=False)
    message = refusal(card, tmp_path, tmp_path / "bundle")
    assert install_command("export", "cpu") in message
    assert "torch" in message


def test_the_bundled_card() -> None:
    card = load_card("tiny")
    assert card.name == "tiny"
    assert card.input.height % 8 == card.input.width % 8 == 0
    with pytest.raises(InputError):
        load_card("models/tiny")
