"""Three branches and four predictions (paper, Fig. 1 and Sec. 2.3; docs/method.md, section 5).

The original video goes through the backbone. Its class responses give each frame two attention maps. The frames
resampled by them are the discriminative and the complementary video, which go through the same backbone as one batch
of 2 B. Each branch has a classifier of its own; a fourth reads the pooled features of all three, and its prediction is
the network's. A network with fewer branches makes and sees no video of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.attention import SparseAttention
from peakzoom.model.backbones import backbone_factory
from peakzoom.model.config import BRANCHES, PeakZoomConfig
from peakzoom.model.geometry import Backbone, CellGeometry, is_backbone, place_response
from peakzoom.model.losses import distillation, several_labels_loss
from peakzoom.model.numerics import exact
from peakzoom.model.pooling import class_scores, drop_channels, gather, pool_cells, quiet_loss, score
from peakzoom.model.pretrained import Pretrained
from peakzoom.model.response import (
    class_response_maps,
    evidence_map,
    find_peaks,
    further_peaks,
    normalise,
    response_map,
    several_classes_map,
)
from peakzoom.model.zoom import ZoomSampler


@dataclass(frozen=True)
class Attention:
    """Where the network looked in a batch of clips."""

    responses: Tensor  # (B, T, g, g) in [0, 1], placed on the attention grid of every frame
    peaks: Tensor  # (B, T, g, g) bool
    q_dis: Tensor  # (B, T, g, g) attention of the discriminative branch
    q_com: Tensor  # (B, T, g, g) attention of the complementary branch
    discriminative: Tensor | None  # (B, 3, T, H, W), the zoomed video; None without its branch
    complementary: Tensor | None  # (B, 3, T, H, W)


@dataclass(frozen=True)
class PeakZoomOutput:
    """Logits (B, S) of every branch that the model has and of their fusion, and the attention if it was asked for."""

    original: Tensor | None
    discriminative: Tensor | None
    complementary: Tensor | None
    fused: Tensor
    attention: Attention | None = None
    maps: Tensor | None = None  # (B, S, T', h, w) Eq. 1, in training where cells are chosen

    def logits(self) -> dict[str, Tensor]:
        """The predictions by name, the fused one last."""
        named = {name: getattr(self, name) for name in BRANCHES}
        return {name: value for name, value in named.items() if value is not None} | {"fused": self.fused}


class PeakZoom(nn.Module, Pretrained):
    """A video network with spatial attention.

    >>> model = PeakZoom("tcnn_xs", num_classes=10, attention_per="clip")

    Args:
        backbone: a name that :func:`~peakzoom.model.backbones.backbone_factory` knows, or any module that is a
            :class:`~peakzoom.model.geometry.Backbone`. (A module is not part of ``config.json``: give it again to
            ``from_pretrained``.)
        num_classes: S, in place of the config's.
        config: all other settings.
        settings: fields of :class:`~peakzoom.model.config.PeakZoomConfig`, in place of the config's.

    Raises:
        UserError: no backbone has that name, or it is one whose code is not allowed to run.
        ValueError: a setting that cannot be, or a module that is no backbone.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "tcnn",
        num_classes: int | None = None,
        config: PeakZoomConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if num_classes is not None:
            settings["num_classes"] = num_classes
        self.config = config = replace(config or PeakZoomConfig(), **settings)
        self.branches = tuple(name for name in BRANCHES if name in config.branches)
        self.classes = list(config.classes or map(str, range(config.num_classes)))
        self.preprocess = dict(config.preprocess or {})

        self.backbone_name = backbone if isinstance(backbone, str) else type(backbone).__name__
        self._hub_mixin_config = asdict(config)  # becomes config.json
        for key in ("faintest", "thresholds"):
            if getattr(config, key) == getattr(PeakZoomConfig, key):
                del self._hub_mixin_config[key]  # as files have it that were written before there was one
        if isinstance(backbone, str):
            self._hub_mixin_config["backbone"] = backbone
            options = {"width": config.width, "dropout": config.dropout, **(config.backbone_options or {})}
            backbone = backbone_factory(backbone)(config.num_classes, **options)
        if not is_backbone(backbone):
            raise ValueError(
                f"{type(backbone).__name__} is no backbone: it needs features(video), cells, num_features and fc"
            )
        if TYPE_CHECKING:
            assert isinstance(backbone, Backbone)
        self.backbone = backbone
        self.attention = SparseAttention(
            config.beta_dis, config.beta_com, config.base, config.eval_mode, config.faintest
        )
        self.sampler = ZoomSampler(config.grid)

        # The original branch's classifier is the backbone's own (Eq. 1 uses it); a lone branch needs no fusion.
        channels, classes, count = backbone.num_features, config.num_classes, len(self.branches)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(channels, classes) for name in self.branches if name != "original"}
        )
        self.fc_fused = nn.Linear(channels * count, classes) if count > 1 else nn.Identity()

    @property
    def multi_label(self) -> bool:
        """Whether a clip may be of several classes: each has a probability of its own, by a sigmoid."""
        return self.config.thresholds is not None

    def set_thresholds(self, thresholds: Sequence[float]) -> None:
        """Have other thresholds (S,) of the classes, of a model for several labels."""
        self.config = replace(self.config, thresholds=tuple(thresholds))
        made_with: Any = self._hub_mixin_config
        made_with["thresholds"] = list(thresholds)

    @property
    def zoomed(self) -> tuple[str, ...]:
        """The branches that see a zoomed video: those of the second pass, in its order."""
        return tuple(name for name in self.branches if name != "original")

    @property
    def zooms(self) -> bool:
        """Whether there is a second pass at all; the original branch alone has none."""
        return bool(self.zoomed)

    def forward(
        self,
        video: Tensor,
        source: Tensor | None = None,
        *,
        phi: Tensor | None = None,
        attention: bool = False,
    ) -> PeakZoomOutput:
        """Four predictions for a batch of clips.

        Args:
            video: (B, 3, T, H, W) float, normalised.
            source: (B, 3, T, H', W') the same frames, larger, for the zoomed videos to be read from; ``video`` itself
                when not given (paper).
            phi: draws of Eq. 5 from :meth:`draw_phi`, which is called when they are not given.
            attention: also return where the network looked.

        Raises:
            ValueError: attention of a network that does not zoom.
        """
        features = self.backbone.features(video)  # (B, C, T', h, w)
        pooled = {"original": self.gather(features)}
        seen = None
        if self.zooms:
            frames, size = video.shape[2], (video.shape[3], video.shape[4])
            responses, peaks = self.respond(features, frames, size)
            if phi is None:
                phi = self.draw_phi(len(video), frames)
            q_dis, q_com, zoomed = self.zoom(video if source is None else source, responses, peaks, size, phi)
            pooled |= self.by_branch(self.gather(self.backbone.features(zoomed)))
            if attention:
                videos = self.by_branch(zoomed)
                seen = Attention(responses, peaks, q_dis, q_com, *(videos.get(name) for name in BRANCHES[1:]))
        elif attention:
            raise ValueError("this model has the original branch alone: it zooms nowhere")
        return replace(self.classify(pooled), attention=seen)

    def by_branch(self, zoomed: Tensor) -> dict[str, Tensor]:
        """What the second pass made of N zoomed videos a clip, (N B, ...), as (B, ...) for each of the N branches."""
        return dict(zip(self.zoomed, zoomed.unflatten(0, (len(self.zoomed), -1)), strict=True))

    @torch.no_grad()
    def respond(self, features: Tensor, frames: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Responses in [0, 1] and peaks on the attention grid of every input frame (Eq. 1-4); no gradient.

        Args:
            features: (B, C, T', h, w) of the original video.
            frames: T of that video.
            size: its (H, W).

        Returns:
            (B, T, g, g) float and (B, T, g, g) bool.
        """
        with exact(features):
            slices, average = self.slice_responses(features), self.config.averages
            where = self.cells(slices.shape[1], frames), frames, size, self.config.grid
            responses, peaks = self.find_peaks(place_response(slices, *where, average=average))
            return responses.expand(-1, frames, -1, -1), peaks.expand(-1, frames, -1, -1)

    def cells(self, slices: int, frames: int) -> CellGeometry:
        """Where the cells of T' slices are placed in a clip of T frames: at the centres of their fields (paper).

        ``centred`` for the original branch alone, which only shows responses, if its backbone has ``frames_apart``.
        """
        cells, apart = self.backbone.cells, getattr(self.backbone, "frames_apart", None)
        if self.zooms or not isinstance(apart, int):
            return cells
        return cells.centred(slices, (frames - 1) // apart * apart)

    def class_maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1 with the original branch's classifier, of features (B, C, T', h, w).

        Returns:
            Class response maps (B, S, T', h, w), and each slice's logits (B, S, T'): the maps pooled as the backbone
            pools them, and the bias. For means that is :func:`~peakzoom.model.response.frame_scores`, because the
            classifier is linear.
        """
        fc, features = self.backbone.fc, features.to(self.backbone.fc.weight.dtype)
        maps = class_response_maps(features, fc.weight)
        scores = pool_cells(maps, self.pool)
        return maps, scores if fc.bias is None else scores + fc.bias[:, None]

    def slice_responses(self, features: Tensor) -> Tensor:
        """Eq. 3, or the evidence in its place, from features (B, C, T', h, w): (B, T', h, w), not normalised."""
        maps, scores = self.class_maps(features)
        if self.multi_label:
            return several_classes_map(maps, scores, self.backbone.fc.bias, self.config.response)
        if self.config.response == "evidence":
            return evidence_map(maps, scores)
        return response_map(maps, scores, self.config.delta, self.config.top)

    def find_peaks(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 4 and peaks, with further ones to zoom by, of placed responses (B, T, g, g): float, bool (B, T, g, g)."""
        responses = normalise(placed)
        peaks, erase = find_peaks(responses), self.zooms and self.config.erase
        return further_peaks(responses, peaks, erase) if erase else (responses, peaks)

    def draw_phi(self, clips: int, frames: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draws of Eq. 5 for every place of the attention grid, uniform in [0, 1).

        Args:
            clips: B.
            frames: T of each clip.
            generator: source of the draws, on the network's device; that device's default when not given.

        Returns:
            (B, T, g, g), or (B, 1, g, g) where one attention serves a clip; None where nothing is drawn: in ``eval()``,
            with another ``train_mode``, and where nothing is zoomed.
        """
        config, like = self.config, self.backbone.fc.weight
        if not self.training or config.train_mode != "sample" or not self.zooms:
            return None
        shape = (clips, 1 if config.averages else frames, config.grid, config.grid)
        return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)

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
            responses: (B, T, g, g), or (B, 1, g, g) where one attention serves a clip, as for the next two.
            peaks: (B, T, g, g).
            size: (H, W) of the result.
            phi: (B, T, g, g) draws of Eq. 5; peaks are split by the mode of ``train()`` or ``eval()`` when not given.

        Returns:
            q_dis, q_com (B, T, g, g), and (N B, 3, T, H, W): the videos of each of the N branches that see one, in the
            order of :attr:`zoomed`.
        """
        batch, frames = source.shape[0], source.shape[2]
        mode = self.config.train_mode if self.training else self.config.eval_mode
        clip = self.config.averages
        if clip:  # one map and one warp for all frames: T frames are 3 T channels of one image
            responses, peaks, phi = responses[:, :1], peaks[:, :1], None if phi is None else phi[:, :1]
        images = source.flatten(1, 2) if clip else source.transpose(1, 2).flatten(0, 1)
        q_dis, q_com = self.attention(
            responses.flatten(0, 1),
            peaks.flatten(0, 1),
            None if phi is None else phi.flatten(0, 1),
            mode=mode if phi is None else "sample",
        )
        maps = {"discriminative": q_dis, "complementary": q_com}
        wanted = torch.cat([maps[name] for name in self.zoomed])
        zoomed = self.sampler(images, wanted, size)  # (N B, 3 T, H, W) or (N B T, 3, H, W)
        zoomed = (
            zoomed.unflatten(1, (3, frames)) if clip else zoomed.unflatten(0, (-1, frames)).transpose(1, 2)
        )
        q_dis, q_com = (each.unflatten(0, (batch, -1)).expand(-1, frames, -1, -1) for each in (q_dis, q_com))
        return q_dis, q_com, zoomed

    def classify(self, pooled: Mapping[str, Tensor]) -> PeakZoomOutput:
        """The predictions from what :meth:`gather` took of the features of every branch.

        Where cells are not averaged, the fused logits are the sum of those of each branch's part of the classifier,
        pooled in that branch. For averages that sum is the one layer on all three.
        """
        dropped = [drop_channels(pooled[name], self.dropout) for name in self.branches]
        logits: dict[str, Any] = {
            name: self.score(name, value) for name, value in zip(self.branches, dropped, strict=True)
        }
        layer: Any = self.fc_fused
        if len(logits) == 1:
            (fused,) = logits.values()
        elif self.pool == "mean":
            fused = layer(torch.cat(dropped, dim=1))
        else:
            parts = zip(dropped, layer.weight.chunk(len(dropped), dim=1), strict=True)
            scores = [class_scores(value, weight, self.pool) for value, weight in parts]
            fused = torch.stack(scores).sum(0) + layer.bias
        chosen = self.training and self.pool != "mean"  # then what was gathered are all features
        maps = class_response_maps(pooled["original"], self.backbone.fc.weight) if chosen else None
        return PeakZoomOutput(**{name: logits.get(name) for name in BRANCHES}, fused=fused, maps=maps)

    @property
    def pool(self) -> str:
        """How the cells of a class map make its score, see :mod:`peakzoom.model.pooling`."""
        how = getattr(self.backbone, "pool", None)
        return how if isinstance(how, str) else "mean"  # many networks have a layer of that name

    def gather(self, features: Tensor) -> Tensor:
        """What the classifiers read of features (B, C, T', h, w): their means (B, C); all, where cells are chosen."""
        return gather(features, self.pool)

    def score(self, name: str, gathered: Tensor) -> Tensor:
        """Logits (B, S) of a branch from what :meth:`gather` took of its features."""
        head: Any = self.backbone.fc if name == "original" else self.heads[name]
        return score(gathered, head, self.pool)

    def loss(
        self,
        output: PeakZoomOutput,
        target: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weight: Tensor | None = None,
        quiet: float = 0.0,
        distill: float = 0.0,
    ) -> Tensor:
        """Eq. 8: the sum of the branches' cross-entropies and the fused one's, each with weight 1.

        Of several labels, all are :func:`~peakzoom.model.losses.several_labels_loss`.

        Args:
            output: of ``forward``.
            target: (B,) int64 class indices; of several labels (B, S) float, 1 for each.
            label_smoothing: as in ``torch.nn.functional.cross_entropy``; the paper uses none.
            class_weight: (S,), as in ``torch.nn.functional.cross_entropy``.
            quiet: weight of :func:`~peakzoom.model.pooling.quiet_loss` of the original branch, which only a backbone
                that chooses among its cells has, and none of several labels; the paper has none.
            distill: weight of :func:`distillation` of the original branch from the fused prediction, where
                there are both; the paper has none.
        """
        logits = output.logits()
        if len(self.branches) == 1:
            del logits["fused"]  # it is the branch itself
        if self.multi_label:
            one = partial(several_labels_loss, class_weight=class_weight)
        else:
            one = partial(F.cross_entropy, weight=class_weight)
        losses = [one(value, target, label_smoothing=label_smoothing) for value in logits.values()]
        if (
            quiet and output.maps is not None and not self.multi_label
        ):  # there each cell denies what a clip is not
            bias = self.backbone.fc.bias
            losses.append(quiet * quiet_loss(output.maps, bias, target, class_weight=class_weight))
        if distill and output.original is not None and len(self.branches) > 1:
            losses.append(distill * distillation(output.original, output.fused))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def start_heads_from_original(self) -> None:
        """Begin stage 2 where stage 1 ended: every branch classifies as the backbone's own classifier does.

        The fused classifier starts as the mean of the branches' logits. The paper says that the joint training starts
        from the T-CNN but not how the new classifiers do; random ones would first undo what the features know.
        """
        weight, bias = self.backbone.fc.weight, self.backbone.fc.bias
        for head in self.heads.values():
            head.load_state_dict({"weight": weight, "bias": bias})
        if isinstance(self.fc_fused, nn.Linear):
            self.fc_fused.weight.copy_(weight.repeat(1, len(self.branches)) / len(self.branches))
            self.fc_fused.bias.copy_(bias)
