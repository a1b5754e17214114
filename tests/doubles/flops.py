"""Operations of a torch program as torch's own counter gives them."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_operations(run: Callable[[], object]) -> int:
    """Count twice the multiply-adds; the CPU's own attention kernel is not in torch's table."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops()


def count_weights(module: torch.nn.Module) -> int:
    """Count the elements of all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
