"""Video networks by name. Each is a :class:`~peakzoom.model.geometry.Backbone`, one file each.

A factory takes ``num_classes`` and, by keyword, ``width`` (a factor on all channels), ``dropout`` and ``max_stride``
(strides that would take feature cells more pixels apart than this are left out: small inputs keep enough cells).
Without them a network is as it was published.
"""

from __future__ import annotations

from collections.abc import Callable

from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.c3d import c3d
from peakzoom.model.backbones.i3d import i3d
from peakzoom.model.backbones.p3d import p3d
from peakzoom.model.backbones.r2plus1d import r2plus1d_18
from peakzoom.model.backbones.r3d import r3d_18
from peakzoom.model.backbones.tcnn import TCNN, tcnn, tcnn_s, tcnn_s_local, tcnn_xs, tcnn_xs_local
from peakzoom.model.backbones.trn import trn
from peakzoom.model.backbones.tsm import tsm
from peakzoom.model.backbones.tsn import tsn

BACKBONES: dict[str, Callable[..., VideoNetwork]] = {
    "tcnn": tcnn,
    "tcnn_s": tcnn_s,
    "tcnn_xs": tcnn_xs,
    "tcnn_s_local": tcnn_s_local,
    "tcnn_xs_local": tcnn_xs_local,
    "c3d": c3d,
    "r3d_18": r3d_18,
    "r2plus1d_18": r2plus1d_18,
    "p3d": p3d,
    "i3d": i3d,
    "tsn": tsn,
    "tsm": tsm,
    "trn": trn,
}

FIXED_LENGTH = {"trn"}  # networks for one number of frames, which their factories take as ``frames``

__all__ = [
    "BACKBONES",
    "FIXED_LENGTH",
    "TCNN",
    "VideoNetwork",
    "tcnn",
    "tcnn_s",
    "tcnn_xs",
    "tcnn_s_local",
    "tcnn_xs_local",
]
