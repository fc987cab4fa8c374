"""Training in two stages, as the paper: the T-CNN first, then the branches of the recipe from it."""

from __future__ import annotations
