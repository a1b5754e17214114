"""Folders of diffusers as they come: variants, parts, placeholders, and files that lie."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from doubles.pipelines import make_autoencoder, make_text_encoder, make_transformer, run_export
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.checkpoints.dequantised import DequantisedWeights
from vditrack_export.checkpoints.loading import build_empty
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.checkpoints.stored_tensors import SafetensorsFiles
from vditrack_export.checkpoints.weights import StoredModel
from vditrack_export.pipeline.backbone import load_backbone
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint

NAME = "diffusion_pytorch_model"
INDEX = f"transformer/{NAME}.safetensors.index.json"
VAE = f"vae/{NAME}.safetensors"


def check_weights(
    found: Checkpoint, folder: Path, variant: str | None = None, vae_variant: str | None = None
) -> None:
    """Check that a checkpoint has the weights that diffusers itself loads."""
    options: dict[str, Any] = {"torch_dtype": torch.float32}
    if not list(folder.glob("vae/*.safetensors")):
        options["use_safetensors"] = False
    pairs = (
        (found.transformer, WanTransformer3DModel, folder / "transformer", variant),
        (found.encoder, AutoencoderKLWan, folder / "vae", vae_variant),
    )
    for model, model_class, path, of_variant in pairs:
        expected = model_class.from_pretrained(path, variant=of_variant, **options).state_dict()
        for name, weight in model.state_dict().items():
            assert weight.dtype == torch.float32
            assert torch.equal(weight, expected[name]), name


def clear(folder: Path) -> None:
    """Delete the weights of a model."""
    for path in folder.glob(f"{NAME}*"):
        path.unlink()


def save_variant(checkpoint: Path, variant: str, seed: int, **options: object) -> None:
    """Save the transformer with the weights of a seed as a variant."""
    torch.manual_seed(seed)
    model = make_transformer("wan").to(torch.float16)
    model.save_pretrained(checkpoint / "transformer", variant=variant, **options)


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "50KB"}], ids=["whole", "parts"])
def test_the_only_variant_is_taken(
    checkpoint: Path, card: Card, options: dict[str, object]
) -> None:
    clear(checkpoint / "transformer")
    clear(checkpoint / "vae")
    save_variant(checkpoint, "fp16", 1, **options)
    make_autoencoder("wan").half().save_pretrained(checkpoint / "vae", variant="fp16")
    found = load_checkpoint(card, Weights(checkpoint))
    check_weights(found, checkpoint, "fp16", "fp16")
    index = f"{NAME}.safetensors.index.fp16.json" if options else f"{NAME}.fp16.safetensors"
    assert found.notes[0] == f"transformer: weights are read from {index}"


@pytest.mark.parametrize(
    "options",
    [{}, {"max_shard_size": "50KB"}, {"variant": "fp16"}],
    ids=["whole", "parts", "variant"],
)
def test_files_of_torch_are_read(checkpoint: Path, card: Card, options: dict[str, str]) -> None:
    for name, make in (("transformer", make_transformer), ("vae", make_autoencoder)):
        clear(checkpoint / name)
        make("wan").save_pretrained(checkpoint / name, safe_serialization=False, **options)
    assert not list(checkpoint.glob("vae/*.safetensors"))
    variant = options.get("variant")
    check_weights(load_checkpoint(card, Weights(checkpoint)), checkpoint, variant, variant)


class Attack:
    """An object whose unpickling runs a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("attacked",)


def _save_torch(content: object) -> Callable[[Path], None]:
    """Save an object with ``torch.save`` in place of the autoencoder's weights."""

    def damage(checkpoint: Path) -> None:
        clear(checkpoint / "vae")
        torch.save(content, checkpoint / "vae" / f"{NAME}.bin")

    return damage


CYCLE: dict[str, object] = {}
CYCLE["again"] = CYCLE


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_save_torch({"a": Attack()}), "reading it could run code"),
        (_save_torch([1, 2]), "has no tensors"),
        (_save_torch(CYCLE), "in each other without end"),
        (_save_torch({"a": torch.zeros(2, 2).to_sparse()}), "no numbers of its own"),
        (_save_torch({"a": torch.zeros(2, device="meta")}), "no numbers of its own"),
        (_save_torch({"a": torch.zeros(1).expand(10**12)}), "a is not wanted"),
        (
            lambda path: (
                _save_torch({"a": torch.zeros(9)})(path)
                or os.truncate(path / f"vae/{NAME}.bin", 100)
            ),
            "vae/diffusion_pytorch_model.bin",
        ),
    ],
)
def test_a_file_of_torch_runs_no_code(
    checkpoint: Path,
    card: Card,
    damage: Callable[[Path], None],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkpoint)
    damage(checkpoint)
    with pytest.raises(InputError, match=complaint):
        load_checkpoint(card, Weights(checkpoint))
    assert not Path("attacked").exists()


def test_plain_weights_are_preferred_unless_a_variant_is_asked_for(
    checkpoint: Path, card: Card
) -> None:
    save_variant(checkpoint, "fp16", 1)
    found = load_checkpoint(card, Weights(checkpoint))
    check_weights(found, checkpoint)
    assert "--variant fp16" in found.notes[0]
    asked = load_checkpoint(card, Weights(checkpoint, variant="fp16"))
    check_weights(asked, checkpoint, "fp16")
    assert asked.notes[1].endswith(f"{NAME}.safetensors; there is no variant fp16")
    assert asked.sha256 != found.sha256
    with pytest.raises(InputError, match=r"--variant bf16: .* has no weights of this variant"):
        load_checkpoint(card, Weights(checkpoint, variant="bf16"))


def test_among_several_variants_the_user_chooses(checkpoint: Path, card: Card) -> None:
    clear(checkpoint / "transformer")
    save_variant(checkpoint, "fp16", 1)
    save_variant(checkpoint, "ema", 2)
    with pytest.raises(InputError, match=r"weights are there as ema, fp16. .*--variant ema"):
        load_checkpoint(card, Weights(checkpoint))
    found = load_checkpoint(card, Weights(checkpoint, variant="ema"))
    check_weights(found, checkpoint, "ema")


def test_variants_of_the_text_encoder(checkpoint: Path, card: Card) -> None:
    for path in (checkpoint / "text_encoder").glob("*.safetensors"):
        path.unlink()
    encoder = make_text_encoder("wan").half()
    encoder.save_pretrained(checkpoint / "text_encoder", variant="fp16")
    prompt = load_backbone(card, Weights(checkpoint)).prompt
    assert prompt.abs().max() > 0


def _first_part(checkpoint: Path) -> Path:
    return min((checkpoint / "transformer").glob("*.safetensors"))


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).write_bytes(content) and None


def _change_json(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


def _name_a_part(name: str) -> Callable[[Path], None]:
    return _change_json(INDEX, weight_map={"x": name})


def _link(name: str, target: str) -> Callable[[Path], None]:
    """Put a link in place of a file, to a good copy that lies elsewhere."""

    def damage(checkpoint: Path) -> None:
        shutil.move(checkpoint / name, checkpoint.parent / "elsewhere")
        (checkpoint / name).symlink_to(target)

    return damage


def _fifo(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        os.mkfifo(checkpoint / name)

    return damage


def _save(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        weights = load_file(checkpoint / name)
        change(weights)
        save_file(weights, checkpoint / name)

    return damage


def _copy_a_tensor(checkpoint: Path) -> None:
    """Put a tensor of one part into another."""
    first, second, *_ = sorted((checkpoint / "transformer").glob("*.safetensors"))
    weights = load_file(first)
    name = min(weights)
    save_file(load_file(second) | {name: weights[name]}, second)


def _nest(checkpoint: Path) -> None:
    inside = checkpoint / "Wan-Diffusers"
    inside.mkdir()
    for name in ("transformer", "vae"):
        shutil.move(checkpoint / name, inside / name)


def _convert(weights: dict[str, torch.Tensor], kind: torch.dtype) -> None:
    weights.update({name: weight.to(kind) for name, weight in weights.items()})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_8bit": True}
BIAS = "quant_conv.bias"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_write(VAE, LFS), "Git LFS, not the file itself. Run `git lfs pull`"),
        (_write("vae/config.json", LFS), "Git LFS"),
        (_write("text_encoder/model.safetensors", LFS), "Git LFS"),
        (_write("tokenizer/tokenizer.json", LFS), "Git LFS"),
        (_write(VAE, b""), "is empty"),
        (_write(VAE, b"<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
        (lambda path: os.truncate(path / VAE, 5000), "5,000 bytes and may be cut short"),
        (lambda path: os.truncate(_first_part(path), 5000), "may be cut short"),
        (_name_a_part("../../vae/diffusion_pytorch_model.safetensors"), "no file of weights"),
        (_name_a_part("/etc/passwd"), "no file of weights"),
        (_name_a_part("a/b.safetensors"), "no file of weights"),
        (_name_a_part("\ud800.safetensors"), "is not a JSON object"),
        (_name_a_part(""), "no file of weights"),
        (_change_json(INDEX, weight_map={"x": 3}), "no file of weights"),
        (_change_json(INDEX, weight_map=[]), "not an index"),
        (_change_json("vae/config.json", x=json.loads("[" * 70 + "]" * 70)), "nested more than"),
        (_link(VAE, "../../elsewhere"), "outside of the checkpoint"),
        (_link(INDEX, "../../elsewhere"), "outside of the checkpoint"),
        (_link("vae/config.json", "../../elsewhere"), "outside of the checkpoint"),
        (_link(VAE, "nothing"), "is a link to a file that is missing"),
        (_link(VAE, f"{NAME}.safetensors"), "leads nowhere"),
        (_link("text_encoder/model.safetensors", "../../elsewhere"), "outside of the checkpoint"),
        (_fifo(VAE), "it is a FIFO"),
        (_fifo("vae/config.json"), "it is a FIFO"),
        (_copy_a_tensor, "both have a tensor"),
        (_save(VAE, lambda weights: _convert(weights, torch.int8)), "quantised to int8"),
        (_save(VAE, lambda weights: _convert(weights, torch.int64)), "numbers of type I64"),
        (_save(VAE, lambda weights: _convert(weights, torch.bool)), "numbers of type BOOL"),
        (_save(VAE, lambda weights: weights.update(lone=torch.zeros(1))), "lone is not wanted"),
        (_save(VAE, lambda weights: weights.update(größe=torch.zeros(1))), "größe is not wanted"),
        (_save(VAE, lambda weights: weights.update(query=torch.zeros(1))), "query is not wanted"),
        (
            _save(VAE, lambda weights: weights.update({BIAS: torch.tensor(1.0)})),
            f"{BIAS} is of another shape",
        ),
        (_change_json("vae/config.json", _class_name="ControlNetModel"), "backbone's own"),
        (
            _change_json("transformer/config.json", quantization_config=BITSANDBYTES),
            "quantised by bitsandbytes",
        ),
        (
            _change_json("text_encoder/config.json", quantization_config=BITSANDBYTES),
            "quantised by bitsandbytes",
        ),
        (_change_json("transformer/config.json", rope_max_seq_len=10**9), "which no model has"),
        (_change_json("transformer/config.json", rope_max_seq_len=10**6), "tables of"),
        (_change_json("transformer/config.json", num_layers=10**9), "which no model has"),
        (_change_json("vae/config.json", latents_mean=[0.0] * 9999), "9999 entries"),
        (_change_json("vae/config.json", latents_mean=[0.0] * 3), "are not 4 numbers"),
        (_change_json("vae/config.json", latents_mean="text"), "are not 4 numbers"),
        (_change_json("vae/config.json", latents_std=[1.0] * 3 + [0.0]), "not 4 positive numbers"),
        (_change_json("vae/config.json", latents_std=[[1.0]] * 4), "not 4 positive numbers"),
        (_nest, "Give "),
        (lambda path: shutil.rmtree(path / "tokenizer"), "lacks tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_or_lies_is_refused(
    checkpoint: Path, card: Card, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(checkpoint)
    with pytest.raises(InputError) as refused:
        load_backbone(card, Weights(checkpoint))
    message = str(refused.value)
    assert complaint in message
    assert str(checkpoint) in message
    assert "\n" not in message
    assert len(message) < 700


def test_the_folder_of_one_model_is_not_the_checkpoint(checkpoint: Path, card: Card) -> None:
    with pytest.raises(InputError, match=rf"lacks .* or give {checkpoint}, which has vae/"):
        load_checkpoint(card, Weights(checkpoint / "transformer"))


def test_links_within_a_checkpoint_are_followed(checkpoint: Path, card: Card) -> None:
    shutil.move(checkpoint / VAE, checkpoint / "weights.safetensors")
    (checkpoint / VAE).symlink_to("../weights.safetensors")
    linked = checkpoint.parent / "linked"
    linked.symlink_to(checkpoint)
    check_weights(load_checkpoint(card, Weights(linked)), checkpoint)


def test_a_configuration_cannot_ask_for_any_number_of_modules(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    weights = DequantisedWeights(SafetensorsFiles([tmp_path / "a.safetensors"]))
    shape = {"num_attention_heads": 1, "attention_head_dim": 12, "ffn_dim": 1}
    config = {"_class_name": "WanTransformer3DModel", "num_layers": 10**6, **shape}
    with pytest.raises(InputError, match="more than 1010 modules"):
        build_empty(StoredModel(tmp_path, config, weights), WanTransformer3DModel, config)


def test_a_missing_text_encoder_is_told_before_the_transformer_is_read(
    checkpoint: Path, card_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(checkpoint / "text_encoder")
    monkeypatch.setattr("vditrack_export.pipeline.backbone.load_checkpoint", None)
    refused = run_export(card_file, "--weights", checkpoint, "-o", tmp_path / "bundle")
    assert "lacks text_encoder" in str(refused.exception)
