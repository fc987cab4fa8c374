"""One stage of a training as Lightning sees it: optimiser, steps, means of an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from peakzoom.data.entries import Problem
from peakzoom.data.loading import Batch, seed_of
from peakzoom.evaluation.multi_label import choose_thresholds
from peakzoom.model import PeakZoom
from peakzoom.model.network import PeakZoomOutput
from peakzoom.training.batch_augment import BatchChanges, Mixed
from peakzoom.training.distributed import SharedDropout, Slice, Together
from peakzoom.training.lora import log_passed_by
from peakzoom.training.optimizer import make_optimizer, schedule
from peakzoom.training.recipes import Recipe, StageSettings
from peakzoom.training.seen import SeenVideos, precisions
from peakzoom.utils.errors import UserError
from peakzoom.video.views import to_input

CHECK_EVERY = 50  # steps between looks at the loss on a GPU, each of which waits for it


class Training(L.LightningModule):
    """One stage as Lightning sees it. ``problems`` gathers the files that could not be decoded on the way."""

    class_weight: Tensor | None

    def __init__(
        self, model: PeakZoom, recipe: Recipe, settings: StageSettings, seed: int, class_weight: Tensor | None
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe, self.settings, self.seed = recipe, settings, seed
        self.register_buffer("class_weight", class_weight, persistent=False)
        branches = model.branches if len(model.branches) > 1 else ()
        measure = "map" if model.multi_label else "accuracy"
        self.measures = {**{name: f"{measure}_{name}" for name in branches}, "fused": measure}
        self.problems: dict[str, Problem] = {}
        self.changes = BatchChanges(recipe.batch_augment)
        self.draws: torch.Generator | None = None
        self.together = Together(1)
        self.sums: dict[str, list[Any]] = {}  # of an epoch so far: [sum over the clips, clips]
        self.seen = {part: SeenVideos() for part in ("train", "val")}  # of several labels a video
        self._finite: Tensor = torch.tensor(True)
        self._went_back = False

    def on_fit_start(self) -> None:
        self.together = Together(self.trainer.world_size)
        if self.trainer.world_size > 1:
            self.model.dropout = SharedDropout(self.model.dropout.p)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.settings)
        steps = int(self.trainer.estimated_stepping_batches)
        scale = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule(step, steps, self.settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scale, "interval": "step"}}

    def on_train_epoch_start(self) -> None:  # after Lightning's train()
        if self.recipe.frozen_views or self.recipe.lora:
            self.model.backbone.eval()
        if self.settings.frozen_norms:
            for part in self.model.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout and the split of peaks draw anew from (seed, step), so a resumed run draws what it would have. Every
        # process draws for the whole batch and takes its part, so their number changes nothing. (The last number is
        # 0 where every batch is a step, as all were once.)
        state = seed_of(self.seed, self.global_step, batch_idx % self.recipe.accumulate)
        torch.manual_seed(state)
        self.draws = torch.Generator(self.device).manual_seed(state)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # Lightning's own would go into the problems and stumble over them.
        return batch.to(device, self.recipe.preprocess.source_size)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.note(batch.problems)
        world = self.trainer.world_size
        part = self.together.slice(len(batch.views))
        if world == 1 and not part.total:
            return None
        if len(batch.views):
            mixed = self.changes(batch.views, batch.labels)
            batch = batch._replace(views=mixed.views, labels=mixed.labels)
            output = self._run(batch, part if world > 1 else None)
            loss = self._loss(output, mixed)
        else:
            loss = self._nothing()
        if world > 1:
            loss = loss * self._weight_among_all(batch.labels)
        if len(batch.views):
            self._measure("train", output, batch, loss.detach() * part.total / world)
        self._finite = loss.detach().isfinite() & self._finite
        if self.device.type == "cpu" or self.global_step % CHECK_EVERY == 0:
            self._check_finite()
        return loss * self._weight_in_step(batch_idx)

    def on_after_backward(self) -> None:
        if self.recipe.lora and not self._went_back:
            log_passed_by(self.model)
        self._went_back = True

    def _weight_in_step(self, batch_idx: int) -> float:
        """What a batch counts beside Lightning's 1 / accumulate: the last step of an epoch may have fewer batches."""
        most = self.recipe.accumulate
        begun = batch_idx // most * most
        return most / min(most, self.trainer.num_training_batches - begun)

    def _loss(self, output: PeakZoomOutput, mixed: Mixed) -> Tensor:
        """Of clips that are of one class each, or of two where they are mixed."""
        of = partial(
            self.model.loss,
            output,
            label_smoothing=self.settings.label_smoothing,
            class_weight=self.class_weight,
            quiet=self.recipe.quiet,
            distill=self.recipe.distill,
        )
        loss: Tensor = of(mixed.labels)
        return loss if mixed.others is None else (1 - mixed.share) * loss + mixed.share * of(mixed.others)

    def _nothing(self) -> Tensor:
        """A loss of 0 with gradients of 0, for which the other processes wait: no clip here could be decoded."""
        if any(isinstance(part, nn.SyncBatchNorm) for part in self.modules()):
            raise UserError(
                f"process {self.global_rank} could decode no clip of its batch, so batch norms cannot be synchronised: "
                "train with --set cache=on, or without sync_batch_norm"
            )
        used = [value for value in self.parameters() if value.requires_grad]
        return torch.stack([0 * value.sum() for value in used]).sum()

    def _weight_among_all(self, labels: Tensor) -> Tensor:
        """What this process's mean loss counts in the mean of all: how its clips weigh against the others', times W."""
        weights = torch.ones(len(labels), device=labels.device)
        alike = self.class_weight is None or self.model.multi_label  # a mean over clips then
        own = (weights if alike or self.class_weight is None else self.class_weight[labels]).sum()
        every = own.clone()
        torch.distributed.all_reduce(every)
        return self.trainer.world_size * own / every.clamp(min=1e-30)

    def _check_finite(self) -> None:
        if self.together.sums([float(not self._finite)]) != [0.0]:
            raise UserError(
                f"the loss is no longer a finite number in epoch {self.current_epoch + 1}, step {self.global_step}: "
                "train anew with a lower --lr, or with --precision 32-true where it was another"
            )

    def on_train_epoch_end(self) -> None:
        # Before the checkpoint callbacks: what they saved last is from before.
        self._check_finite()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.note(batch.problems)
        if len(batch.views):
            output = self._run(batch)
            loss = self.model.loss(output, batch.labels)
            self._measure("val", output, batch, loss * len(batch.labels))

    def on_validation_epoch_end(self) -> None:
        if measured := self.log_epoch("val"):
            # Accuracy, or mAP, chooses the epoch; on few videos it ties often, and then the lower loss does.
            score = measured[f"val_{self.measures['fused']}"] - 1e-3 * min(measured["val_loss"], 10.0)
        else:  # no validation video could be decoded: as without any, the last epoch is kept
            score = float(self.current_epoch - 1_000_000)
        self.log("val_score", score)

    def _run(self, batch: Batch, part: Slice | None = None) -> PeakZoomOutput:
        video, source = to_input(batch.views, self.recipe.preprocess)
        dtype = self.model.backbone.fc.weight.dtype  # another than float32 where --precision is 64-true, say
        video, source = video.to(dtype), None if source is None else source.to(dtype)
        if isinstance(self.model.dropout, SharedDropout):
            self.model.dropout.slice = part
        first, total = part or (0, len(video))
        phi = self.model.draw_phi(total, video.shape[2], self.draws)
        return self.model(video, source, phi=None if phi is None else phi[first : first + len(video)])

    def _measure(self, part: str, output: PeakZoomOutput, batch: Batch, loss: Tensor) -> None:
        """Add to the sums of the epoch: ``loss``, a sum over the clips and the branches, and the right predictions."""
        logits = {name: output.logits()[name] for name in self.measures}
        found = {"loss": loss / len(self.measures)}
        if self.model.multi_label:
            self.seen[part].add(batch.videos, logits, batch.labels)
        else:
            for name, measure in self.measures.items():
                found[measure] = (logits[name].argmax(1) == batch.labels).sum()
        for measure, value in found.items():
            total = self.sums.setdefault(f"{part}_{measure}", [0.0, 0])
            total[0] = total[0] + value.detach().float()  # on the device: a GPU is not waited for
            total[1] += len(batch.labels)

    def log_epoch(self, part: str) -> dict[str, float]:
        """Log the epoch's means over the clips of all processes and begin anew; empty where there was no clip."""
        keys = [f"{part}_{measure}" for measure in ("loss", *self.measures.values())]
        own = [float(value) for key in keys for value in self.sums.pop(key, (0.0, 0))]
        total = self.together.sums(own)
        means = {key: total[2 * i] / total[2 * i + 1] for i, key in enumerate(keys) if total[2 * i + 1]}
        if self.model.multi_label and (seen := self.seen[part].means(self.together)):
            means |= dict(zip(keys[1:], precisions(seen), strict=True))
            if part == "val":  # the fused prediction's stand last
                self.model.set_thresholds(choose_thresholds(seen[0][-1], seen[1]))
        for key, mean in means.items():
            self.log(key, mean, prog_bar=key in (f"{part}_loss", f"{part}_{self.measures['fused']}"))
        return means

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["problems"] = [(each.path, each.reason) for each in self.all_problems()]
        if self.model.config.thresholds is not None:
            checkpoint["thresholds"] = list(self.model.config.thresholds)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.note(checkpoint.get("problems", []))  # absent from runs of older versions
        if self.model.multi_label:
            self.model.set_thresholds(checkpoint["thresholds"])

    def all_problems(self) -> list[Problem]:
        """The files that some process could not decode, or not whole. Every process has to call this."""
        return list(dict.fromkeys(self.together.lists(list(self.problems.values()))))

    def note(self, problems: Iterable[tuple[str, str]]) -> None:
        """Remember files that could not be decoded, or not whole: path and reason of each."""
        for path, reason in problems:
            self.problems.setdefault(path, Problem(path, reason))
