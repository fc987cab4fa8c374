"""Many trainings and the tables made of them."""

from __future__ import annotations
