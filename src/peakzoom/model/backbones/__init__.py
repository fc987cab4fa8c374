"""Video networks by name. Each is a :class:`~peakzoom.model.geometry.Backbone`, one file each.

A factory takes ``num_classes`` and, by keyword, ``width`` (a factor on all channels), ``dropout`` and ``max_stride``
(strides that would take feature cells more pixels apart than this are left out: small inputs keep enough cells).
Without them a network is as it was published.
"""

from __future__ import annotations

from collections.abc import Callable

from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.tcnn import TCNN, tcnn, tcnn_s, tcnn_xs

BACKBONES: dict[str, Callable[..., VideoNetwork]] = {
    "tcnn": tcnn,
    "tcnn_s": tcnn_s,
    "tcnn_xs": tcnn_xs,
}

__all__ = ["BACKBONES", "TCNN", "VideoNetwork", "tcnn", "tcnn_s", "tcnn_xs"]
