"""Short trainings whose clips lie on the device whole; on a GPU a step is recorded once and replayed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from flat import can_flatten, flatten
from held import PRE, Clips, Draws, training_views
from torch import Tensor
from variants import RECIPE, Variant, loss_of

from peakzoom.training.optimizer import decayed_and_spared, schedule
from peakzoom.training.recipes import StageSettings
from peakzoom.utils.memory import keep_freed_memory

# Of a step: what it computes in, and whether by 2-D convolutions (flat.py). The earlier ones are preferred.
MODES = ("float32", "flat-float32", "bfloat16", "flat-bfloat16")


class Training:
    """One training, a step at a time; on a GPU in a stream of its own, replaying one recorded step.

    What is trained, and the loss of a batch, are a subclass's.
    """

    def __init__(self, net: Any, stage: StageSettings, clips: Clips, draws: Draws, half: bool) -> None:
        self.net, self.frames, self.draws, self.half = net.train(), clips.frames, draws, half
        self.steps, self.done = len(draws.frames), 0
        device = clips.frames.device
        rates = [stage.lr * schedule(step, self.steps, stage) for step in range(self.steps)]
        self.rates = torch.tensor(rates, device=device)
        self.rate, self.at = self.rates[0].clone(), torch.zeros(1, dtype=torch.int64, device=device)
        on_gpu = device.type == "cuda"
        options: dict[str, Any] = {"fused": True, "capturable": True} if on_gpu else {"foreach": False}
        self.optimizer = torch.optim.AdamW(
            decayed_and_spared(net), lr=self.rate, weight_decay=stage.weight_decay, **options
        )
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        self.graph: Any = None

    def now(self, table: Tensor) -> Tensor:
        """This step's row of a table."""
        return table.index_select(0, self.at)[0]

    def loss(self) -> Tensor:
        """Of this step's batch."""
        raise NotImplementedError

    def step(self) -> None:
        self.rate.copy_(self.now(self.rates))
        with torch.autocast(self.frames.device.type, torch.bfloat16, enabled=self.half):
            loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.at += 1

    def record(self) -> None:
        """Take the first steps as they are, then record one."""
        if self.stream is None or self.graph is not None:
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
                self.done += 1
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.step()
        except RuntimeError:
            print(f"not recorded, so slow: {traceback.format_exc()}", flush=True)
            return
        self.graph = graph

    def release(self) -> None:
        """Give back the memory of everything but the network."""
        self.graph, self.optimizer = None, None  # type: ignore[assignment]

    def advance(self) -> bool:
        """A step further; whether there was one."""
        if self.done >= self.steps:
            return False
        if self.graph is not None:
            with torch.cuda.stream(self.stream):
                self.graph.replay()
        else:
            self.step()
        self.done += 1
        return True


class OfVariant(Training):
    """A T-CNN alone, as a variant trains it."""

    def __init__(self, net: Any, variant: Variant, clips: Clips, draws: Draws, mode: str = MODES[0]) -> None:
        if mode.startswith("flat") and can_flatten(net):
            flatten(net)
        stage = replace(RECIPE.tcnn, lr=variant.lr)
        super().__init__(net, stage, clips, draws, mode.endswith("bfloat16"))
        self.variant = variant
        self.weights = self._annealed(clips.frames.device) if variant.anneal else None

    def _annealed(self, device: torch.device) -> Tensor:
        """(steps, cells): weights of the cells from the highest to the lowest at each step."""
        last, cells = int(self.variant.pool.split(":")[1]), (PRE.size // self.variant.stride) ** 2
        table = torch.zeros((self.steps, cells))
        for step in range(self.steps):
            share = min(1.0, step / (self.variant.anneal * self.steps))
            count = max(last, round(cells * (last / cells) ** share))
            table[step, :count] = 1 / count
        return table.to(device)

    def loss(self) -> Tensor:
        draws = self.draws
        with torch.no_grad():
            video = training_views(
                self.frames, self.now(draws.frames), self.now(draws.crop), self.now(draws.colour)
            )
        weights = None if self.weights is None else self.now(self.weights)
        return loss_of(self.net, self.variant, video, self.now(draws.labels), weights)


def trained(trainings: Sequence[Training], search: bool = True) -> float:
    """Take all steps of several trainings, in turn; seconds.

    Args:
        trainings: on one device.
        search: let cuDNN try its ways, which costs seconds for every new shape.
    """
    began = time.monotonic()
    torch.backends.cudnn.benchmark = search
    if trainings[0].stream is None:  # on a CPU, as the package's training does there
        keep_freed_memory()
    for each in trainings:
        each.record()
    turn = 0
    while sum(each.advance() for each in trainings):  # each of them, where `any` would stop at the first
        turn += 1
        if turn % 50 == 0 and trainings[0].stream is not None:
            for each in trainings:  # no further ahead of the GPU than that
                each.stream.synchronize()  # type: ignore[union-attr]
    if trainings[0].stream is not None:
        torch.cuda.synchronize()
    return time.monotonic() - began


def step_time(make: Callable[[str], Training], mode: str, steps: int = 40, search: bool = True) -> float:
    """Seconds of a replayed step of one training alone; infinite where it cannot run."""
    torch.backends.cudnn.benchmark = search
    try:
        training = make(mode)
        training.record()
        _wait(training)
        began = time.monotonic()
        done = sum(training.advance() for _ in range(steps))
        _wait(training)
    except RuntimeError as error:
        print(f"{mode} does not run: {str(error).splitlines()[0]}", flush=True)
        return float("inf")
    spent = time.monotonic() - began
    training.release()
    return spent / done


def _wait(training: Training) -> None:
    if training.stream is not None:
        training.stream.synchronize()


def quickest(
    make: Callable[[str], Training], modes: Sequence[str] = MODES, **settings: Any
) -> tuple[str, float]:
    """The mode of the quickest step and its seconds.

    One is preferred to those after it unless it takes more than 1.4 times as long as the quickest.
    """
    spent = {mode: step_time(make, mode, **settings) for mode in modes}
    print("ms a step:", {mode: round(1000 * each, 2) for mode, each in spent.items()}, flush=True)
    best = next(mode for mode in modes if spent[mode] <= 1.4 * min(spent.values()))
    return best, spent[best]
