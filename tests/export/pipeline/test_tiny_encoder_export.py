"""``vditrack export --encoder``: a bundle whose encoder is not the checkpoint's own says so."""

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from doubles.commands import run_command
from doubles.pipelines import run_export
from doubles.taehv import encode_video, taehv_weights
from doubles.wan_checkpoint import WanCheckpoint
from vditrack.acceptance import CLIPS, make_acceptance_clips
from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.cli.inspect import inspect
from vditrack.errors import InputError, VditrackError
from vditrack.features.latent_encoder import LatentEncoder
from vditrack.inference.onnxruntime import open_session
from vditrack_export.card import Card
from vditrack_export.card_changes import replace_encoder
from vditrack_export.checkpoints.checkpoint import StoredCheckpoint
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline import agreement
from vditrack_export.pipeline.agreement import measure_agreement
from vditrack_export.pipeline.backbone import Backbone, load_backbone

pytestmark = pytest.mark.slow

SIZE = ("--size", "48x32", "--frames", "5", "--temporal-stride", "4", "--block", "0")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> WanCheckpoint:
    return WanCheckpoint(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def taehv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("taehv") / "taew2_1.safetensors"
    save_file(taehv_weights(16), path)
    return path


@pytest.fixture(scope="module")
def exported(wan: WanCheckpoint, taehv: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A random TAEHV beside a random VAE: they do not agree, which is accepted."""
    output = tmp_path_factory.mktemp("exported") / "bundle"
    weights = ("--weights", wan.folder, "--encoder-weights", taehv)
    options = ("-o", output, *SIZE, "--encoder", "taehv", "--accept")
    done = run_export(wan.folder.parent / "small.toml", *weights, *options)
    assert done.exception is None, done.output
    assert "taehv (taew2_1.safetensors" in done.stdout
    assert "beyond the limit but accepted" in done.stdout
    return load_bundle(output)


def test_the_bundle_encodes_as_taehv_does(exported: Bundle, taehv: Path) -> None:
    """By the runtime's own code, over a clip that is longer than a window."""
    frames = np.random.default_rng(0).integers(0, 256, (13, 32, 48, 3), np.uint8)
    found = [*LatentEncoder(exported, open_session).encode_clip(frames)]
    weights, clip = taehv_weights(16), torch.from_numpy(frames)
    expected = [encode_video(weights, clip[: end + 1])[-1].numpy() for end in (0, 4, 8, 12)]
    assert len(found) == 4
    for latents, wanted in zip(found, expected, strict=True):
        error = np.abs(np.asarray(latents)[0, :, 0] - wanted).max() / np.abs(wanted).max()
        assert error <= 1e-5


def test_the_bundle_says_that_the_encoder_is_not_the_checkpoints(
    exported: Bundle, taehv: Path
) -> None:
    described = exported.manifest.source.tiny_encoder
    assert described is not None
    assert (described.kind, described.name) == ("taehv", taehv.name)
    content = taehv.read_bytes()
    named = f"{taehv.name}\0{len(content)}\0".encode() + content
    assert described.sha256 == hashlib.sha256(named).hexdigest()
    shown = run_command(inspect, exported.root, "--json").stdout
    assert described.sha256 in shown
    table = run_command(inspect, exported.root).stdout
    assert "not the checkpoint's own" in table
    assert "encoder_agreement" in table


def test_agreement_is_that_of_latents_and_tracks(
    exported: Bundle, wan: WanCheckpoint, taehv: Path
) -> None:
    measured = exported.manifest.encoder_agreement
    assert measured is not None
    assert measured.accepted
    assert (measured.clips, measured.height, measured.width) == (CLIPS, 32, 48)
    card = wan.card
    vae = card.family.encoder.load(StoredCheckpoint(Weights(wan.folder)))
    own, tiny = [], []
    for clip in make_acceptance_clips(exported.manifest.input, CLIPS):
        window = torch.from_numpy(np.ascontiguousarray(clip.frames[:5]))
        own.append(card.family.encoder.original_latents(vae, window, 4)[0].transpose(0, 1))
        tiny += [encode_video(taehv_weights(16), window[:end])[-1:] for end in (1, 5)]
    own, tiny = torch.cat(own).double(), torch.cat(tiny).double()
    difference = (tiny - own).square().mean().sqrt() / own.std(correction=0)
    assert measured.relative_error == pytest.approx(float(difference), rel=1e-3)
    both = torch.stack([own.flatten(), tiny.flatten()])
    assert measured.correlation == pytest.approx(float(torch.corrcoef(both)[0, 1]), abs=1e-4)
    assert 0 < measured.median_move <= np.hypot(32, 48)


def backbone(card: Card, weights: Weights) -> Backbone:
    size = {"height": 16, "width": 32, "frames": 1, "described_frames": 1}
    small = msgspec.structs.replace(card.input, **size)
    small_card = msgspec.structs.replace(card, input=small)
    return load_backbone(replace_encoder(small_card, "taehv"), weights)


def test_only_an_encoder_that_agrees_is_exported(
    wan: WanCheckpoint, taehv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same encoder in place of the checkpoint's own; before that, one that does not."""
    monkeypatch.setattr(agreement, "CLIPS", 1)
    loaded = backbone(wan.card, Weights(wan.folder, tiny_encoder=taehv))
    with pytest.raises(VditrackError, match="not those of the checkpoint's own"):
        measure_agreement(loaded, print, accept=False)
    own = replace(loaded.checkpoint, own_encoder=loaded.checkpoint.encoder)
    monkeypatch.setattr(Card, "own_encoder", property(lambda card: card.family.encoder))
    stages: list[str] = []
    measured = measure_agreement(replace(loaded, checkpoint=own), stages.append, accept=False)
    assert measured is not None
    assert (measured.relative_error, measured.median_move, measured.accepted) == (0, 0, False)
    assert measured.correlation == pytest.approx(1)
    assert measured.average_jaccard == measured.average_jaccard_own
    assert len(stages) == 1


def test_without_the_own_encoder_nothing_is_compared(wan: WanCheckpoint, taehv: Path) -> None:
    weights = Weights(None, transformer=wan.folder / "transformer", tiny_encoder=taehv)
    loaded = backbone(wan.card, weights)
    assert any("not compared" in note for note in loaded.checkpoint.notes)
    assert measure_agreement(loaded, print, accept=False) is None
    assert loaded.checkpoint.tiny_encoder is not None
    # The VAE is not exported, so the checkpoint's digest does not depend on it.
    whole = backbone(wan.card, Weights(wan.folder, tiny_encoder=taehv))
    assert loaded.checkpoint.sha256 != whole.checkpoint.sha256


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--encoder", "taehv", "--weights", "folder"], "--encoder-weights"),
        (["--encoder-weights", "file.pth", "--weights", "folder"], "--encoder taehv"),
        (["--encoder", "taesd", "--random-weights"], "give taehv"),
        (
            ["--encoder", "taehv", "--encoder-weights", "a.pth", "--random-weights"],
            "goes with no file",
        ),
    ],
)
def test_options_that_do_not_go_together(
    wan: WanCheckpoint, tmp_path: Path, options: list[str], reason: str
) -> None:
    done = run_export(wan.folder.parent / "small.toml", "-o", tmp_path / "bundle", *options)
    assert isinstance(done.exception, InputError)
    assert reason in str(done.exception)


def test_random_weights(wan: WanCheckpoint) -> None:
    loaded = backbone(wan.card, Weights(None))
    assert loaded.checkpoint.tiny_encoder is not None
    assert loaded.checkpoint.tiny_encoder.sha256 is None
    assert {name: tuple(value.shape) for name, value in taehv_weights(16).items()}.items() >= {
        name: tuple(value.shape) for name, value in loaded.checkpoint.encoder.state_dict().items()
    }.items()
