"""A search as Lightning sees it: steps of the weights and steps of the probabilities in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peakzoom.data.loading import Batch
from peakzoom.model.backbones.space import NEAR, Space
from peakzoom.training.module import Training
from peakzoom.training.optimizer import make_optimizer, schedule
from peakzoom.training.search.relaxed import Choices
from peakzoom.utils.durable import read_csv, write_csv

FILE = "probabilities.csv"
WARM_UP = 0.25  # of a search: until then the weights learn what a candidate is worth, all being alike likely
CHOICE_RATE = 0.03  # Adam's learning rate of the probabilities
PRICE = 2.0  # weight of the cost beside the loss, and below, the temperatures: as Dong and Yang have them
HOTTEST, COLDEST = 10.0, 0.1


class Searching(Training):
    """Learns the weights of a :class:`~peakzoom.training.search.relaxed.Relaxed` and the probabilities of its choices.

    Even batches are for the weights, odd ones, of other videos, for the probabilities. In every other step of the
    weights the mixture has all channels and blocks: the large network, which is to teach the found one, learns too.

    ``space`` has the candidates, ``budget`` is in G multiply-adds; the other arguments are those of
    :class:`~peakzoom.training.module.Training`.
    """

    def __init__(self, *stage: Any, space: Space, budget: float) -> None:
        super().__init__(*stage)
        self.space, self.budget = space, budget
        self.choices = Choices(space)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        weights = make_optimizer(self.model, self.settings)
        steps = max(1, int(self.trainer.estimated_stepping_batches) // 2)
        scale = torch.optim.lr_scheduler.LambdaLR(weights, lambda step: schedule(step, steps, self.settings))
        chances = torch.optim.Adam(self.choices.parameters(), CHOICE_RATE, betas=(0.5, 0.999))
        return [weights, chances], [scale]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        turn, choosing = divmod(batch_idx, 2)
        epochs = self.trainer.max_epochs or 1
        done = (self.current_epoch + batch_idx / self.trainer.num_training_batches) / epochs
        if choosing and done < WARM_UP:
            return None
        optimizers: Any = self.optimizers()
        optimizer = optimizers[choosing]
        drawn = self.choices.draw(HOTTEST + (COLDEST - HOTTEST) * done, self.draws)
        network: Any = self.model.backbone
        network.mixture = drawn if choosing else self._for_weights(drawn, large=turn % 2 == 1)
        self.toggle_optimizer(optimizer)
        loss = super().training_step(batch, batch_idx)
        if loss is not None:
            optimizer.zero_grad()
            self.manual_backward(loss + self._price().to(loss) if choosing else loss)
            optimizer.step()
        self.untoggle_optimizer(optimizer)
        if not choosing:
            schedulers: Any = self.lr_schedulers()
            schedulers.step()
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here gradients are no longer scaled, as they are in half precision until now.
        of_weights: Any = self.optimizers()
        if self.settings.clip_gradient and optimizer is of_weights[0].optimizer:
            self.clip_gradients(optimizer, self.settings.clip_gradient, "norm")

    def _for_weights(self, drawn: dict[str, Tensor], large: bool) -> dict[str, Tensor]:
        """A mixture without gradients; of the large network, only the dilations are as drawn."""
        widest = self.space.one_hot(self.space.largest()) if large else {}
        mixed = {name: each.detach() for name, each in drawn.items()}
        return mixed | {name: each for name, each in widest.items() if not name.endswith("dilation")}

    def _price(self) -> Tensor:
        """What the cost adds to the loss: it pushes the expected one down where the likeliest network costs too much.

        Up, where that costs too little, and nowhere near the budget: as Dong and Yang do, for networks of low cost may
        be the likeliest while the expected cost is that of the budget.
        """
        chances = self.choices.probabilities()
        cost = self.space.cost({name: int(each.argmax()) for name, each in chances.items()})
        expected = self.space.expected_cost(chances).log()
        if cost > self.budget:
            return PRICE * expected
        return -PRICE * expected if cost < (1 - NEAR) * self.budget else 0 * expected

    def on_validation_epoch_start(self) -> None:
        network: Any = self.model.backbone
        network.mixture = self.space.one_hot(self.found())

    def found(self) -> dict[str, int]:
        """The likely point of the space that costs what the budget allows."""
        return self.space.within(self.choices.probabilities(), self.budget)

    def log_epoch(self, part: str) -> dict[str, float]:
        """As every stage's, with the expected cost."""
        if part == "train":
            self.log("expected_cost", self.space.expected_cost(self.choices.probabilities()).detach().float())
        return super().log_epoch(part)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        epoch = self.current_epoch + 1
        file = Path(self.trainer.default_root_dir) / FILE
        rows: list[list[object]] = [list(row.values()) for row in read_csv(file) if int(row["epoch"]) < epoch]
        for name, chances in self.choices.probabilities().items():
            for value, chance in zip(self.space.choices[name], chances.tolist(), strict=True):
                rows.append([epoch, name, value, f"{chance:.6f}"])
        write_csv(file, ["epoch", "choice", "candidate", "probability"], rows)
