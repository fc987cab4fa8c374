"""Names of the precisions that a network computes in, and which are slow on this processor."""

from __future__ import annotations

from typing import Any

import torch

FULL = "32-true"
PRECISIONS = {
    FULL: torch.float32,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}  # Lightning's names
INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16"), "16": ("avx512_fp16", "amx_fp16")}  # of x86 processors


def slow_in(precision: str, device: torch.device) -> str | None:
    """Why a device would be slow in one of ``PRECISIONS``, as a sentence; None where it would not."""
    if device.type == "cuda" and precision.startswith("bf16") and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        return f"this GPU has no instructions for {precision}: 16-mixed is many times faster"
    wanted = INSTRUCTIONS.get(precision.partition("-")[0])
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.6 cannot say
    if wanted is None or device.type != "cpu" or capabilities.get("architecture") != "x86_64":
        return None
    if any(capabilities.get(name) for name in wanted):
        return None
    return f"this CPU has no instructions for {precision} ({', '.join(wanted)}): 32-true is many times faster"
