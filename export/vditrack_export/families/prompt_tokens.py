"""Merging equal tokens of a prompt.

Prompts are padded to a fixed length, and padding tokens are all equal. A softmax over n equal keys
equals one over a single key with log n added to its logit: n exp(x) = exp(x + log n).
"""

from collections import Counter

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
    rows = [row.tobytes() for row in context.numpy()]
    first = {row: index for index, row in reversed([*enumerate(rows)])}
    counts = Counter(rows)
    return context[[first[row] for row in counts]], torch.tensor([*counts.values()]).float().log()
