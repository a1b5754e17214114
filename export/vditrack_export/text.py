"""The empty prompt: what a checkpoint's text encoder gives for it."""

import gc
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vditrack.errors import InputError
from vditrack.files import staged_file
from vditrack_export.card import T5, Card, CogVideoXTransformer

_TENSOR, _DIGEST = "prompt", "sha256"


def empty_prompt(card: Card, checkpoint: Path, kept: Path | None) -> Tensor:
    """Return the embedding of the empty prompt, float32 [tokens, text_dim], with its padding.

    A card without a text encoder has a single all-zero token. Else it is read from the file
    ``kept``; where there is none yet, the checkpoint's text encoder is loaded, run, freed again,
    and the result is kept there, if a file was named.

    Raises:
        InputError: the file is not such an embedding, or the text encoder is missing or not read.

    """
    shape = (card.transformer.text_tokens, card.transformer.text_dim)
    if card.text_encoder is None:
        return torch.zeros(shape)
    if kept is not None and kept.exists():
        return _read(kept, shape)
    embedding = _computed(card, checkpoint)
    if kept is not None:
        with staged_file(kept) as path:
            save_file({_TENSOR: embedding}, path, {_DIGEST: _digest(embedding)})
    return embedding


def random_prompt(card: Card, seed: int = 0) -> Tensor:
    """Return numbers in the place of that embedding, as many of them different: for random weights.

    Where padding is masked, that is one token, and zeros after it.
    """
    shape = (card.transformer.text_tokens, card.transformer.text_dim)
    embedding = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if not isinstance(card.transformer, CogVideoXTransformer):
        embedding[1:] = 0
    return embedding


def _read(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(_DIGEST)
            embedding: Tensor = file.get_tensor(_TENSOR)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a prompt that vditrack kept: {error}.") from error
    if digest != _digest(embedding):
        raise InputError(f"{path} was altered: its digest is another. Delete it to compute it.")
    if tuple(embedding.shape) != shape:
        raise InputError(
            f"{path} is a prompt of {list(embedding.shape)}, the card wants {list(shape)}. "
            "Give that of this checkpoint."
        )
    return embedding


def _digest(embedding: Tensor) -> str:
    return hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()


def _computed(card: Card, checkpoint: Path) -> Tensor:
    """Tokenise, encode, and set the padding to what the family's pipeline sets it to."""
    # Only a prompt that was not kept needs transformers.
    try:
        from transformers import AutoTokenizer, T5EncoderModel, UMT5EncoderModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the prompt needs {error.name}, which is not installed. Run `pip install "
            "transformers sentencepiece`, or give a prompt that was kept with --prompt."
        ) from error
    folders = checkpoint / "tokenizer", checkpoint / "text_encoder"
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"checkpoint {checkpoint} lacks {folder.name}, which gives the empty prompt. Copy "
                "it too, or give a prompt that was kept with --prompt."
            )
    gated_only = not isinstance(card.text_encoder, T5)
    kind = UMT5EncoderModel if gated_only else T5EncoderModel
    try:
        tokenizer = AutoTokenizer.from_pretrained(folders[0], local_files_only=True)
        encoder = kind.from_pretrained(folders[1], local_files_only=True, dtype=torch.bfloat16)
    # Tokenizers and models of another library fail in ways of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"text encoder of {checkpoint} does not load: {reason}") from error
    length = card.transformer.text_tokens
    tokens = tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
    # CogVideoX's pipeline lets padding tokens be; those of Wan and Cosmos mask them, and zero them.
    masked = not isinstance(card.transformer, CogVideoXTransformer)
    mask = tokens.attention_mask if masked else None
    with torch.no_grad():
        embedding: Tensor = encoder(tokens.input_ids, mask).last_hidden_state[0].float()
    del encoder
    gc.collect()
    return embedding * tokens.attention_mask[0][:, None] if masked else embedding
