"""The method, one idea a file, in the order of the data: T-CNN, responses, attention, zoom, network."""

from __future__ import annotations

from peakzoom.model.attention import SparseAttention
from peakzoom.model.backbones import BACKBONES, TCNN, tcnn, tcnn_s, tcnn_xs
from peakzoom.model.config import PeakZoomConfig
from peakzoom.model.geometry import Backbone, CellGeometry, place_response
from peakzoom.model.network import Attention, PeakZoom, PeakZoomOutput
from peakzoom.model.response import (
    class_response_maps,
    evidence_map,
    find_peaks,
    frame_scores,
    further_peaks,
    normalise,
    response_map,
    top_k_entropy,
)
from peakzoom.model.zoom import ZoomSampler

__all__ = [
    "BACKBONES",
    "TCNN",
    "Attention",
    "Backbone",
    "CellGeometry",
    "PeakZoom",
    "PeakZoomConfig",
    "PeakZoomOutput",
    "SparseAttention",
    "ZoomSampler",
    "class_response_maps",
    "evidence_map",
    "find_peaks",
    "frame_scores",
    "further_peaks",
    "normalise",
    "place_response",
    "response_map",
    "tcnn",
    "tcnn_s",
    "tcnn_xs",
    "top_k_entropy",
]
