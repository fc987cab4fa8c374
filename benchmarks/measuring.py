"""What ``localise.py`` measures of a trained variant: accuracy, nats and pointing on rendered clips, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from held import PRE, Clips, normalised
from pointing import STARTS, Truth, movement, pointing, views_of
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from variants import Variant, looked_at, network


@dataclass
class Test:
    """Rendered test clips of one difficulty."""

    views: Tensor
    truth: Truth
    moves: Tensor

    @classmethod
    def of(cls, clips: Clips) -> Test:
        views = views_of(clips)
        return cls(views, Truth(clips), torch.cat([movement(part) for part in views.split(100)]))


@torch.no_grad()
def answers(net: Any, variant: Variant, views: Tensor, batch: int = 100) -> tuple[Tensor, Tensor]:
    """Logits and evidence maps of views uint8 (V, T, 3, s, s)."""
    torch.backends.cudnn.benchmark = False  # a few passes are not worth a search
    found = [looked_at(net, variant, normalised(part.float())) for part in views.split(batch)]
    return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])


def right(logits: Tensor, labels: Tensor, clips: int) -> tuple[float, float]:
    """Accuracy in percent and nats of videos whose clips' softmax scores are averaged; clips go round slowest."""
    chances = logits.softmax(1).unflatten(0, (clips, -1)).mean(0)
    nats = F.nll_loss(chances.clamp(min=1e-9).log(), labels)
    return 100 * float((chances.argmax(1) == labels).float().mean()), float(nats)


def measured(net: Any, variant: Variant, tests: dict[float, Test]) -> dict[str, Any]:
    """Accuracy, nats and pointing at each difficulty."""
    net.eval()
    row: dict[str, Any] = {}
    for difficulty, test in tests.items():
        logits, evidence = answers(net, variant, test.views)
        accuracy, nats = right(logits, test.truth.labels[: len(logits) // len(STARTS)], len(STARTS))
        found = pointing(evidence, net.cells, test.truth, test.moves)
        row[str(difficulty)] = {"accuracy": accuracy, "nats": nats} | found
    return row


def cost(variant: Variant, classes: int) -> dict[str, float]:
    net = network(variant, classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        looked_at(net, variant, torch.zeros(1, 3, PRE.frames, PRE.size, PRE.size))
    return {
        "G multiply-adds": counter.get_total_flops() / 2e9,
        "M parameters": sum(each.numel() for each in net.parameters()) / 1e6,
    }
