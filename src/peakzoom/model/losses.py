"""Losses beside the cross-entropy of Eq. 8: several labels a clip, and learning from the fused prediction."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def several_labels_loss(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, class_weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of every class, summed over the classes; the mean over the clips.

    It is Eq. 8's term where a sigmoid stands in the place of the softmax. The sum, not the mean, over the classes: the
    gradient of a logit is then p - t for either, and learning rates keep their meaning.

    Args:
        logits: (B, S).
        target: (B, S) float, 1 for the classes of a clip and 0 for the others.
        label_smoothing: e; targets become t (1 - e) + e / 2.
        class_weight: (S,), how much the classes of a clip count; those that it is not of count 1.
    """
    smooth = target * (1 - label_smoothing) + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=class_weight, reduction="none")
    return each.sum(1).mean()


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """How far a prediction is from another one, which gets no gradient (Hinton, Vinyals and Dean, 2015).

    Args:
        student: (B, S) logits.
        teacher: (B, S) logits.
        temperature: by which both are divided, so that classes that are not the likeliest count too.

    Returns:
        The mean over the clips of the Kullback-Leibler divergence of the softened predictions, times the temperature's
        square, which makes its gradient as large as a cross-entropy's.
    """
    soft = (teacher.detach() / temperature).log_softmax(1)
    found = F.kl_div((student / temperature).log_softmax(1), soft, reduction="batchmean", log_target=True)
    return temperature**2 * found
