"""The learning rate of every head that a probe trains: a straight warm-up to its peak, then a cosine to zero."""

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(optimizer: Optimizer, steps: int, *, warm: int) -> LambdaLR:
    """The schedule of a training of ``steps``, of which the first ``warm`` (at least one) warm up."""
    warm = max(1, warm)
    return LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / warm) * (1 + np.cos(np.pi * step / steps)) / 2
    )
