"""A prompt's tokens as constants of cross-attention, equal ones merged into one.

Prompts are padded to a fixed length, and padding tokens are all alike. A softmax over n equal keys
gives what one key gives with log n added to its logit: n exp(x) = exp(x + log n).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def merge_tokens(context: Tensor) -> tuple[Tensor, Tensor]:
    """Merge rows that are equal bit by bit; what is computed of each row alone is then equal too.

    Args:
        context: float32 [N, D].

    Returns:
        Rows that differ, float32 [M, D], in the order in which they first appear, and the logarithm
        of how often each appears, float32 [M].

    """
    bits = context.contiguous().view(torch.int32).numpy()
    _, first, counts = np.unique(bits, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return context[first[order]], torch.from_numpy(counts[order]).float().log()


def attend_to_prompt(
    query: Tensor, key: Tensor, value: Tensor, log_counts: Tensor | None
) -> Tensor:
    """Attention of [1, N, heads, channels] to merged tokens, [1, M, heads, channels].

    ``log_counts`` is that of `merge_tokens`, or None where all are zero. Returns [1, N, width], the
    heads joined.
    """
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    bias = None if log_counts is None else log_counts[None]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attended.transpose(1, 2).flatten(-2)
