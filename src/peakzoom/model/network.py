"""The three branches and their four predictions (paper, Fig. 1 and Sec. 2.3; docs/method.md, section 5).

The original video goes through the backbone; its class responses give each frame two attention maps; the frames
resampled by them make the discriminative and the complementary video, which go through the same backbone as one
batch of 2 B. Each branch has its classifier, a fourth reads the three pooled features together, and its answer counts.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.attention import SparseAttention
from peakzoom.model.backbones import BACKBONES
from peakzoom.model.geometry import Backbone, axis_matrix, place_labels, place_response
from peakzoom.model.numerics import exact
from peakzoom.model.pretrained import _folder_of
from peakzoom.model.response import (
    class_response_maps,
    class_shares,
    evidence_map,
    evidence_weights,
    find_peaks,
    further_peaks,
    gate_weights,
    normalise,
    response_map,
)
from peakzoom.model.zoom import ZoomSampler
from peakzoom.utils.errors import UserError

BRANCHES = ("original", "discriminative", "complementary")
ATTENTION_PER = ("frame", "clip")
RESPONSES = ("gate", "evidence")


@dataclass(frozen=True)
class Attention:
    """Where the network looked in a batch of clips."""

    responses: Tensor  # (B, T, g, g) in [0, 1], placed on the attention grid of every frame
    peaks: Tensor  # (B, T, g, g) bool
    q_dis: Tensor  # (B, T, g, g) attention of the discriminative side
    q_com: Tensor  # (B, T, g, g)
    discriminative: Tensor  # (B, 3, T, H, W), the zoomed video
    complementary: Tensor  # (B, 3, T, H, W)


@dataclass(frozen=True)
class PeakZoomOutput:
    """Logits (B, S) of every branch that the model has, of their fusion, and the attention when asked for."""

    original: Tensor | None
    discriminative: Tensor | None
    complementary: Tensor | None
    fused: Tensor
    attention: Attention | None = None

    def logits(self) -> dict[str, Tensor]:
        """The predictions by name, the fused one last."""
        named = {name: getattr(self, name) for name in BRANCHES}
        return {name: value for name, value in named.items() if value is not None} | {"fused": self.fused}


class PeakZoom(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="peakzoom",
    license="apache-2.0",
    tags=["video-classification"],
):
    """A video network with spatial attention.

    Args:
        backbone: a name in ``BACKBONES`` or any module that is a :class:`~peakzoom.model.geometry.Backbone`. (A
            module is not part of ``config.json``: give it again to ``from_pretrained``.)
        num_classes: S.
        branches: which of "original", "discriminative", "complementary" are classified and fused; a single branch is
            its own answer, so ``("original",)`` is the backbone alone (paper, Table 4).
        width: of a named backbone.
        backbone_options: what else a named backbone is made with, such as ``max_stride``.
        dropout: before every classifier.
        grid: side g of the attention grid.
        response: "gate" is Eq. 3 (paper); "evidence" is :func:`~peakzoom.model.response.evidence_map`.
        delta: threshold of the entropy gate (Eq. 3).
        top: classes that an uncertain slice brings together (Eq. 3).
        erase: reach of :func:`~peakzoom.model.response.further_peaks` as a fraction of the frame; 0 looks for no
            further peaks (paper).
        beta_dis: see :class:`SparseAttention`, as for the next two.
        beta_com: likewise.
        base: likewise.
        train_mode: how peaks are split in ``train()``.
        eval_mode: how they are split in ``eval()``.
        attention_per: "frame" gives every frame its own warp (paper); "clip" averages the responses over time first,
            so that a clip is enlarged as one and limbs do not wobble.
        classes: S class names, kept for the saved configuration.
        preprocess: how clips were made (input size, frame stride, normalisation, ...), kept likewise.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "tcnn",
        num_classes: int = 400,
        *,
        branches: Sequence[str] = BRANCHES,
        width: float = 1.0,
        backbone_options: dict[str, Any] | None = None,
        dropout: float = 0.5,
        grid: int = 31,
        response: str = "gate",
        delta: float = 0.2,
        top: int = 5,
        erase: float = 0.0,
        beta_dis: float = 0.127,
        beta_com: float = 0.424,
        base: float = 0.09,
        train_mode: str = "sample",
        eval_mode: str = "expected",
        attention_per: str = "frame",
        classes: Sequence[str] | None = None,
        preprocess: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not branches or set(branches) - set(BRANCHES):
            raise ValueError(f"branches are {list(branches)}, expected some of {', '.join(BRANCHES)}")
        if attention_per not in ATTENTION_PER:
            raise ValueError(
                f"attention_per is {attention_per!r}, expected one of {', '.join(ATTENTION_PER)}"
            )
        if response not in RESPONSES:
            raise ValueError(f"response is {response!r}, expected one of {', '.join(RESPONSES)}")
        if not 0 <= erase < 1:
            raise ValueError(f"erase is {erase}, expected 0 or more and less than 1, a fraction of the frame")
        if classes is not None and len(classes) != num_classes:
            raise ValueError(f"{len(classes)} class names for {num_classes} classes")
        self.backbone_name = backbone if isinstance(backbone, str) else type(backbone).__name__
        self.origin: Path | None = None  # the folder that from_pretrained read
        if isinstance(backbone, str):
            if backbone not in BACKBONES:
                raise UserError(f"backbone is {backbone!r}, expected one of {', '.join(BACKBONES)}")
            options = {"width": width, "dropout": dropout, **(backbone_options or {})}
            backbone = BACKBONES[backbone](num_classes, **options)
        if not isinstance(backbone, Backbone):
            raise ValueError(
                f"{type(backbone).__name__} is no backbone: it needs features(video), cells, num_features and fc"
            )
        self.backbone = backbone
        self.branches = tuple(name for name in BRANCHES if name in branches)
        self.response, self.delta, self.top = response, delta, top
        self.erase, self.grid = erase, grid
        self.attention_per = attention_per
        self.train_mode = train_mode
        self.classes = list(classes) if classes is not None else [str(index) for index in range(num_classes)]
        self.preprocess = dict(preprocess or {})
        self.attention = SparseAttention(beta_dis, beta_com, base, eval_mode)
        self.sampler = ZoomSampler(grid)
        self.dropout = nn.Dropout(dropout)
        # The original branch's classifier is the backbone's own (Eq. 1 uses it); a lone branch needs no fusion.
        channels = backbone.num_features
        self.heads = nn.ModuleDict(
            {name: nn.Linear(channels, num_classes) for name in self.branches if name != "original"}
        )
        self.fc_fused = (
            nn.Linear(channels * len(self.branches), num_classes) if len(self.branches) > 1 else nn.Identity()
        )

    @torch.no_grad()
    def start_heads_from_original(self) -> None:
        """Begin the joint training where the backbone's own ended: every branch classifies as the original does.

        The fused classifier starts as the mean of the branches' logits. The paper says that the joint training starts
        from the T-CNN but not how the new classifiers do; random ones would first undo what the features know.
        """
        weight, bias = self.backbone.fc.weight, self.backbone.fc.bias
        for head in self.heads.values():
            head.load_state_dict({"weight": weight, "bias": bias})
        if isinstance(self.fc_fused, nn.Linear):
            self.fc_fused.weight.copy_(weight.repeat(1, len(self.branches)) / len(self.branches))
            self.fc_fused.bias.copy_(bias)

    def respond(
        self,
        features: Tensor,
        frames: int,
        size: tuple[int, int],
        step: int = 1,
        target: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Responses in [0, 1] and peaks on the attention grid of every input frame (Eq. 1-4); no gradient.

        Args:
            features: (B, C, T', h, w) of the original video.
            frames: T of that video.
            size: its (H, W).
            step: only every ``step``-th frame is wanted.
            target: what speaks for this class, whatever the network thinks of it; Eq. 3 or what stands in its place
                when not given.

        Returns:
            (B, T, g, g) float and (B, T, g, g) bool; T / step rounded up in place of T.
        """
        with torch.no_grad(), exact(features):
            maps, scores = self._class_maps(features)
            if target is not None:
                # The mean map says nothing of one class against the others (see evidence_map); Eq. 1 leaves it in.
                response = maps[:, target] - (maps.mean(1) if self.response == "evidence" else 0)
            elif self.response == "evidence":
                response = evidence_map(maps, scores)
            else:
                response = response_map(maps, scores, self.delta, self.top)
            clip = self.attention_per == "clip"
            placed = place_response(
                response, self.backbone.cells, frames, size, self.grid, step=step, average=clip
            )
            placed = normalise(placed)
            peaks = find_peaks(placed)
            if self.erase:
                placed, peaks = further_peaks(placed, peaks, self.erase)
            shape = (placed.shape[0], -(-frames // step), *placed.shape[2:])
            return placed.expand(shape), peaks.expand(shape)

    def _class_maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1 with the original branch's classifier: maps (B, S, T', h, w) and each slice's logits (B, S, T').

        Logits are the maps' means and the bias: the classifier is linear, so :func:`frame_scores` is the same.
        """
        fc, features = self.backbone.fc, features.to(self.backbone.fc.weight.dtype)
        maps = class_response_maps(features, fc.weight)
        scores = maps.mean((3, 4))
        return maps, scores if fc.bias is None else scores + fc.bias[:, None]

    @torch.no_grad()
    def frame_probabilities(self, features: Tensor, frames: int) -> Tensor:
        """Softmax of Eq. 1's class scores at every input frame: (B, S, T), linear in time between feature slices.

        Args:
            features: (B, C, T', h, w) of the original video.
            frames: T.
        """
        with exact(features):
            chances = self._class_maps(features)[1].softmax(1)  # (B, S, T')
            return chances @ self._slices(features, frames).T.to(chances)

    @torch.no_grad()
    def speaking_classes(self, features: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
        """The class that adds most to the response at each place of the attention grid: int64 (B, T, g, g).

        Arguments as of :meth:`respond`. Where a clip is attended to as one, so are its classes.
        """
        with exact(features):
            maps, scores = self._class_maps(features)
            evidence = self.response == "evidence"
            weights = evidence_weights(scores) if evidence else gate_weights(scores, self.delta, self.top)
            shares = class_shares(maps, weights)
            if self.attention_per == "clip":
                over = self._slices(features, frames).mean(0).to(shares)  # (T',), how much each slice counts
                never = shares.isinf().all(2, keepdim=True)
                shares = torch.einsum("bsthw,t->bshw", shares.nan_to_num(neginf=0.0), over)[:, :, None]
                shares = shares.masked_fill(never, -torch.inf)
            return place_labels(shares.argmax(1), self.backbone.cells, frames, size, self.grid)

    def _slices(self, features: Tensor, frames: int) -> Tensor:
        """(T, T') float64: from feature slices to input frames."""
        cells, slices = self.backbone.cells, features.shape[2]
        where = cells.stride[0], cells.offset[0]
        return axis_matrix(frames - 1, frames, slices, *where, torch.float64, features.device)

    def zoom(
        self,
        source: Tensor,
        responses: Tensor,
        peaks: Tensor,
        size: tuple[int, int],
        phi: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The two attention maps and the two zoomed videos (Eq. 5-7 and Sec. 2.2).

        Args:
            source: (B, 3, T, H', W') frames to read from, of the input's size or larger.
            responses: (B, T, g, g).
            peaks: (B, T, g, g).
            size: (H, W) of the result.
            phi: (B, T, g, g) draws for the split; the evaluation's mode when not given.

        Returns:
            q_dis, q_com (B, T, g, g), and (2 B, 3, T, H, W): the discriminative videos, then the complementary ones.
        """
        batch, frames = responses.shape[:2]
        shape = responses.shape
        if self.attention_per == "clip":  # all frames alike: one map, one warp, T frames as 3 T channels
            responses, peaks, phi = responses[:, :1], peaks[:, :1], None if phi is None else phi[:, :1]
            images = source.flatten(1, 2)  # (B, 3 T, H', W')
        else:
            images = source.transpose(1, 2).flatten(0, 1)  # (B T, 3, H', W')
        q_dis, q_com = self.attention(
            responses.flatten(0, 1),
            peaks.flatten(0, 1),
            None if phi is None else phi.flatten(0, 1),
            mode=None if phi is None else "sample",
        )

        zoomed = self.sampler(images, torch.cat((q_dis, q_com)), size, apart=True)
        if self.attention_per == "clip":
            zoomed = zoomed.unflatten(2, (3, frames))
        else:
            zoomed = zoomed.unflatten(1, (batch, frames)).transpose(2, 3)
        zoomed = zoomed.flatten(0, 1)

        def maps(attention: Tensor) -> Tensor:
            return attention.unflatten(0, (batch, -1)).expand(shape)

        return maps(q_dis), maps(q_com), zoomed

    def forward(
        self,
        video: Tensor,
        source: Tensor | None = None,
        *,
        attention: bool = False,
        generator: torch.Generator | None = None,
        share: tuple[int, int] | None = None,
    ) -> PeakZoomOutput:
        """Four predictions for a batch of clips.

        Args:
            video: (B, 3, T, H, W) float, normalised.
            source: (B, 3, T, H', W') the same frames, larger, for the zoomed videos to be read from; ``video`` itself
                when not given (paper).
            attention: also return where the network looked.
            generator: source of the random split in training; the device's default when not given.
            share: these clips are (first, total): those from ``first`` on in a batch of ``total`` that several
                processes share. They get the random draws that they would get in that batch.
        """
        features = self.backbone.features(video)
        pooled = {"original": features.mean((2, 3, 4))}
        looked = None
        if self.branches != ("original",):
            size, frames = (video.shape[3], video.shape[4]), video.shape[2]
            responses, peaks = self.respond(features, frames, size)
            phi = None
            if self.training and self.train_mode == "sample":
                # One draw a peak: of each frame, or of the whole clip where it is attended to as one.
                first, total = share or (0, len(video))
                shape = responses.shape if self.attention_per == "frame" else responses[:, :1].shape
                phi = torch.rand(
                    (total, *shape[1:]), generator=generator, device=video.device, dtype=responses.dtype
                )
                phi = phi[first : first + len(video)].expand_as(responses)
            q_dis, q_com, zoomed = self.zoom(video if source is None else source, responses, peaks, size, phi)
            second = self.backbone.features(zoomed).mean((2, 3, 4))
            pooled["discriminative"], pooled["complementary"] = second.chunk(2)
            if attention:
                looked = Attention(responses, peaks, q_dis, q_com, *zoomed.chunk(2))
        elif attention:
            raise ValueError("this model has the original branch alone: it zooms nowhere")

        answered = self.classify({name: pooled[name] for name in self.branches}, share)
        return replace(answered, attention=looked)

    def classify(self, pooled: Mapping[str, Tensor], share: tuple[int, int] | None = None) -> PeakZoomOutput:
        """The predictions from each branch's pooled features (B, C), in the order of ``branches``.

        ``share`` is as for :meth:`forward`.
        """
        pooled = {name: self._drop(value, share) for name, value in pooled.items()}
        logits = {name: self.head(name)(value) for name, value in pooled.items()}
        if len(logits) == 1:
            fused = next(iter(logits.values()))
        else:
            fused = self.fc_fused(torch.cat(tuple(pooled.values()), dim=1))
        return PeakZoomOutput(**{name: logits.get(name) for name in BRANCHES}, fused=fused)

    def _drop(self, pooled: Tensor, share: tuple[int, int] | None) -> Tensor:
        if share is None or not self.training:
            return self.dropout(pooled)
        first, total = share
        kept: Tensor = self.dropout(pooled.new_ones((total, pooled.shape[1])))
        return pooled * kept[first : first + len(pooled)]

    def head(self, name: str) -> nn.Module:
        """The classifier of a branch: (B, C) -> (B, S)."""
        return self.backbone.fc if name == "original" else self.heads[name]

    def loss(
        self,
        output: PeakZoomOutput,
        target: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """Eq. 8: the sum of the branches' cross-entropies and the fused one's, each with weight 1.

        Args:
            output: of ``forward``.
            target: (B,) int64 class indices.
            label_smoothing: as in ``torch.nn.functional.cross_entropy``; the paper uses none.
            class_weight: (S,) likewise.
        """
        logits = output.logits()
        if len(self.branches) == 1:
            logits.pop("fused")  # it is the branch itself
        losses = [
            F.cross_entropy(value, target, weight=class_weight, label_smoothing=label_smoothing)
            for value in logits.values()
        ]
        return torch.stack(losses).sum()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that ``save_pretrained`` and ``push_to_hub`` write: :func:`peakzoom.hub.card.card_of`."""
        from peakzoom.hub.card import card_of

        return card_of(self, **kwargs)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, strict: bool = True, **kwargs: Any) -> PeakZoom:
        # The mixin's default accepts weights that do not fit the network; and it prints where it reads from.
        with contextlib.redirect_stdout(io.StringIO()):
            model = super()._from_pretrained(model_id=model_id, strict=strict, **kwargs)
        model.origin = _folder_of(model_id, {key: kwargs[key] for key in ("revision", "cache_dir", "token")})
        return model

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise UserError(
            "these weights are a pickle, which can run code when read: expected model.safetensors"
        )


LETTERS = {"original": "O", "discriminative": "D", "complementary": "C"}  # as the paper abbreviates them
