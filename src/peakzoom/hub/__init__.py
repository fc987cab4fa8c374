"""Model cards, and models on the Hugging Face Hub."""

from __future__ import annotations
