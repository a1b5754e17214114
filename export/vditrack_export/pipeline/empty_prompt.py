"""The embedding of the empty prompt, computed by the checkpoint's text encoder."""

import gc
import hashlib
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
from vditrack_export.checkpoints.sources import Weights

_TENSOR, _DIGEST = "prompt", "sha256"


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
    checkpoint = weights.text_encoder or weights.folder
    if checkpoint is None or not checkpoint.is_dir():
        raise InputError(
            "there is no text encoder to compute the empty prompt with. Give the folder that has "
            "tokenizer/ and text_encoder/ with --text-encoder, or a stored prompt with --prompt."
        )
    embedding = denoiser.embed_empty_prompt(
        card.text_encoder, partial(_load_text_encoder, checkpoint)
    )
    gc.collect()
    if stored is not None:
        with staged_file(stored) as path:
            save_file({_TENSOR: embedding}, path, {_DIGEST: _digest(embedding)})
    return embedding


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


def _load_text_encoder(checkpoint: Path, suffix: str, model_class: str) -> tuple[Any, Any]:
    """Load a tokenizer and a text encoder, the latter as a class of transformers."""
    # A prompt that is stored in a file does not need transformers.
    try:
        import transformers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the prompt needs {error.name}, which is not installed. Run `pip install "
            "transformers sentencepiece`, or give a stored prompt with --prompt."
        ) from error
    folders = checkpoint / f"tokenizer{suffix}", checkpoint / f"text_encoder{suffix}"
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"checkpoint {checkpoint} lacks {folder.name}, which gives the empty prompt. Copy "
                "it too, give its folder with --text-encoder, or a stored prompt with --prompt."
            )
    options = {"local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0], **options)
        encoder = getattr(transformers, model_class).from_pretrained(
            folders[1], dtype=torch.bfloat16, **options
        )
    # Damaged tokenizers and models raise exceptions of many classes.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"text encoder of {checkpoint} does not load: {reason}") from error
    return tokenizer, encoder
