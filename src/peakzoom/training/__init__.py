"""Training in two stages, as the paper: the T-CNN first, then the three branches from it."""

from __future__ import annotations
