"""Merging equal tokens of a prompt.

Prompts are padded to a fixed length, and padding tokens are all equal. A softmax over n equal keys
equals one over a single key with log n added to its logit: n exp(x) = exp(x + log n).
"""

import numpy as np
import torch
from torch import Tensor


def merge_tokens(context: Tensor) -> tuple[Tensor, Tensor]:
    """Merge rows that are equal bit by bit.

    Args:
        context: Tokens, float32 [N, D].

    Returns:
        Distinct rows, float32 [M, D], in the order in which they first appear, and the logarithm
        of how often each appears, float32 [M].

    """
    bits = context.contiguous().view(torch.int32).numpy()
    _, first, counts = np.unique(bits, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return context[first[order]], torch.from_numpy(counts[order]).float().log()
