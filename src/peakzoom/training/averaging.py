"""An exponential moving average of the weights, which is validated and kept in place of the last ones."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Lightning's averaging of weights and batch norms with a decay that grows with the steps.

    A mean over the last 1 / (1 - decay) steps would be, in a short training, mostly the weights that it began with. So
    step n has the decay min(decay, (1 + n) / (10 + n)), as TensorFlow's ``ExponentialMovingAverage``.

    Args:
        decay: at most, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        def averaged(average: Tensor, current: Tensor, step: Tensor | int) -> Tensor:
            if not average.is_floating_point():  # how many batches a norm has seen
                return current
            taken = torch.as_tensor(step, device=average.device)  # never read here: a GPU would be waited for
            share = 1 - ((1 + taken) / (10 + taken)).clamp(max=decay)
            return average.lerp(current, share.to(average.dtype))

        super().__init__(avg_fn=averaged)
