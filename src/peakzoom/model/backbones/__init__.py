"""Video networks by name, each with the arguments of :class:`~peakzoom.model.backbones.base.VideoNetwork`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from peakzoom.model.backbones.architecture import ARCHITECTURE, architecture
from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.c3d import C3D
from peakzoom.model.backbones.i3d import I3D
from peakzoom.model.backbones.own import is_own, own_network
from peakzoom.model.backbones.p3d import P3D
from peakzoom.model.backbones.r2plus1d import R2Plus1D
from peakzoom.model.backbones.r3d import R3D
from peakzoom.model.backbones.s3d import S3D
from peakzoom.model.backbones.slowfast import SlowFast
from peakzoom.model.backbones.t3d import T3D
from peakzoom.model.backbones.tcnn import (
    TCNN,
    tcnn,
    tcnn_16,
    tcnn_local,
    tcnn_s,
    tcnn_s_local,
    tcnn_xs,
    tcnn_xs_local,
)
from peakzoom.model.backbones.timesformer import TimeSformer
from peakzoom.model.backbones.torchvision_nets import MViT, swin3d_b, swin3d_s, swin3d_t
from peakzoom.model.backbones.trn import TRN
from peakzoom.model.backbones.tsm import TSM
from peakzoom.model.backbones.tsn import TSN
from peakzoom.model.backbones.videomae import videomae_b, videomae_l, videomae_s
from peakzoom.model.backbones.vivit import ViViT
from peakzoom.model.backbones.vjepa2 import VJEPA2
from peakzoom.utils.errors import UserError, did_you_mean

BACKBONES: dict[str, Callable[..., VideoNetwork]] = {
    "tcnn": tcnn,
    "tcnn_16": tcnn_16,
    "tcnn_local": tcnn_local,
    "tcnn_s": tcnn_s,
    "tcnn_xs": tcnn_xs,
    "tcnn_s_local": tcnn_s_local,
    "tcnn_xs_local": tcnn_xs_local,
    "c3d": C3D,
    "r3d_18": R3D,
    "res3d": R3D,  # Tran et al. 2017, the row of that name in Tables 2 and 3: the same network
    "r2plus1d_18": R2Plus1D,
    "p3d": P3D,
    "i3d": I3D,
    "s3d": S3D,
    "slowfast_r50": SlowFast,
    "t3d": T3D,
    "tsn": TSN,
    "tsm": TSM,
    "trn": TRN,
    "videomae_s": videomae_s,
    "videomae_b": videomae_b,
    "videomae_l": videomae_l,
    "timesformer": TimeSformer,
    "vivit": ViViT,
    "vjepa2_l": VJEPA2,
    "swin3d_t": swin3d_t,
    "swin3d_s": swin3d_s,
    "swin3d_b": swin3d_b,
    "mvit_v2_s": MViT,
}

# Networks that need the extra of that name.
TRANSFORMERS = {"videomae_s", "videomae_b", "videomae_l", "timesformer", "vivit", "vjepa2_l"}
TORCHVISION = {"swin3d_t", "swin3d_s", "swin3d_b", "mvit_v2_s"}  # networks that need torchvision
FIXED_SIZE = {"mvit_v2_s", *TRANSFORMERS}  # networks for one size, which they take as ``size``
FIXED_LENGTH = {"trn", *FIXED_SIZE}  # networks for one number of frames, which they take as ``frames``


PLANNED = f"{ARCHITECTURE} with its plan"
EXPECTED = f"one of {', '.join(BACKBONES)}, {PLANNED}, or a network of your own as package.module:factory"


def is_network(name: object) -> bool:
    """Whether a name is that of a network here, or has the form of one that is a user's own."""
    return (isinstance(name, str) and (name in BACKBONES or name == ARCHITECTURE)) or is_own(name)


def backbone_factory(name: str) -> Callable[..., nn.Module]:
    """What makes a network of that name: of :data:`BACKBONES`, or a user's own (:mod:`peakzoom.model.backbones.own`).

    Raises:
        UserError: there is none, or its code is not allowed to run.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name == ARCHITECTURE:
        return architecture
    if is_own(name):
        return own_network(name)
    raise UserError(f"backbone is {name!r}, expected {EXPECTED}{did_you_mean(name, BACKBONES)}")


def options_for(name: str, max_stride: int, frames: int, size: int) -> dict[str, int]:
    """What a network by name is told of the clips beside the width: all take ``max_stride``, some only one shape."""
    shape = {"frames": frames} if name in FIXED_LENGTH else {}
    return {"max_stride": max_stride, **shape, **({"size": size} if name in FIXED_SIZE else {})}


__all__ = [
    "ARCHITECTURE",
    "BACKBONES",
    "EXPECTED",
    "FIXED_LENGTH",
    "FIXED_SIZE",
    "TCNN",
    "TORCHVISION",
    "TRANSFORMERS",
    "VideoNetwork",
    "backbone_factory",
    "is_network",
    "is_own",
    "options_for",
    "tcnn",
    "tcnn_16",
    "tcnn_local",
    "tcnn_s",
    "tcnn_xs",
]
