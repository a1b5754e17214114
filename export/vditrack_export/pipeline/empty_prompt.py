"""The embedding of the empty prompt, computed by the checkpoint's text encoder."""

import gc
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.checkpoints.diffusers_folder import CONFIG
from vditrack_export.checkpoints.file_checks import check_file
from vditrack_export.checkpoints.json_files import read_json
from vditrack_export.checkpoints.quantisation import check_quantisation
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.checkpoints.weight_choice import TRANSFORMERS, WeightFile, choose_weights

_TENSOR, _DIGEST = "prompt", "sha256"
_COPY = "Copy it too, give its folder with --text-encoder, or a stored prompt with --prompt."
_SUFFIXES = (".json", ".txt", ".model", ".safetensors", ".bin")
"""Ends of the names of files that tokenizers and text encoders read."""


def empty_prompt(card: Card, weights: Weights) -> Tensor:
    """Return the embedding of the empty prompt with its padding.

    A card without a text encoder has a single all-zero token, or none if the model takes no prompt.

    Args:
        card: Card of the checkpoint.
        weights: Folder of the checkpoint, with its tokenizer and text encoder, and the file with
            the embedding; it is computed and written if it does not exist.

    Returns:
        float32 [tokens, text_dim]. HunyuanVideo has two text encoders and one more row: see
        `HunyuanPrompt`.

    Raises:
        InputError: The file is not such an embedding, or the text encoder does not load.

    """
    denoiser, stored = card.family.denoiser, weights.prompt
    if card.text_encoder is None:
        return torch.zeros(denoiser.prompt_shape)
    if stored is not None and stored.exists():
        return _read(stored, denoiser.prompt_shape)
    check_text_encoder(card, weights)
    embedding = denoiser.embed_empty_prompt(card.text_encoder, partial(_load_text_encoder, weights))
    gc.collect()
    if stored is not None:
        with staged_file(stored) as path:
            save_file({_TENSOR: embedding}, path, {_DIGEST: _digest(embedding)})
    return embedding


def check_text_encoder(card: Card, weights: Weights) -> None:
    """Check that the empty prompt can be computed, or is stored; no weights are read.

    Raises:
        InputError: transformers is not installed, or a file of the text encoder is missing, a
            placeholder or quantised.

    """
    stored = weights.prompt
    if card.text_encoder is None or (stored is not None and stored.exists()):
        return
    checkpoint = _text_encoder_root(weights)
    for suffix in card.family.denoiser.text_encoders:
        _check_files(checkpoint, checkpoint / f"tokenizer{suffix}")
        folder = checkpoint / f"text_encoder{suffix}"
        names = _check_files(checkpoint, folder)
        check_quantisation(folder / CONFIG, read_json(folder / CONFIG, checkpoint))
        if _choose_weights(folder, names, weights.variant) is None:
            raise InputError(
                f"checkpoint {checkpoint} lacks {folder.name}/model.safetensors. {_COPY}"
            )
    _import_transformers()


def random_prompt(card: Card, seed: int = 0) -> Tensor:
    """Return random numbers in place of a prompt, for random weights.

    If the family's pipeline masks padding, one token is random and the others are zero.
    """
    return card.family.denoiser.random_prompt(seed)


def _read(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(_DIGEST)
            embedding: Tensor = file.get_tensor(_TENSOR)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a prompt that vditrack wrote: {error}. Delete it to compute it again."
        ) from error
    if digest != _digest(embedding):
        raise InputError(
            f"{path} was altered: its digest does not match. Delete it to compute it again."
        )
    if tuple(embedding.shape) != shape:
        raise InputError(
            f"{path} is a prompt of {list(embedding.shape)}, the card needs {list(shape)}. "
            "Give the prompt of this checkpoint."
        )
    return embedding


def _digest(embedding: Tensor) -> str:
    return hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()


def _text_encoder_root(weights: Weights) -> Path:
    checkpoint = weights.text_encoder or weights.folder
    if checkpoint is None or not checkpoint.is_dir():
        raise InputError(
            "there is no text encoder to compute the empty prompt with. Give the folder that has "
            "tokenizer/ and text_encoder/ with --text-encoder, or a stored prompt with --prompt."
        )
    return checkpoint


def _check_files(checkpoint: Path, folder: Path) -> list[str]:
    """Check the files of a tokenizer or a text encoder, and return their names."""
    if not folder.is_dir():
        raise InputError(
            f"checkpoint {checkpoint} lacks {folder.name}, which gives the empty prompt. {_COPY}"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    for file in files:
        check_file(file, checkpoint)
    return [file.name for file in files]


def _choose_weights(folder: Path, names: Sequence[str], variant: str | None) -> WeightFile | None:
    try:
        return choose_weights(names, TRANSFORMERS, variant)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _import_transformers() -> Any:  # noqa: ANN401
    # A prompt that is stored in a file does not need transformers.
    try:
        import transformers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the prompt needs {error.name}, which is not installed. Run `pip install "
            "transformers sentencepiece`, or give a stored prompt with --prompt."
        ) from error
    return transformers


def _load_text_encoder(weights: Weights, suffix: str, model_class: str) -> tuple[Any, Any]:
    """Load a tokenizer and a text encoder, the latter as a class of transformers."""
    transformers, checkpoint = _import_transformers(), _text_encoder_root(weights)
    folder = checkpoint / f"text_encoder{suffix}"
    names = [path.name for path in folder.iterdir()]
    chosen = _choose_weights(folder, names, weights.variant)
    # Code in a checkpoint is never run, and nobody is asked whether it may be.
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint / f"tokenizer{suffix}", **options
        )
        encoder = getattr(transformers, model_class).from_pretrained(
            folder,
            dtype=torch.bfloat16,
            variant=(chosen and chosen.variant) or None,
            **options,
        )
    # Damaged tokenizers and models raise exceptions of many classes.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"text encoder of {checkpoint} does not load: {reason}") from error
    return tokenizer, encoder
