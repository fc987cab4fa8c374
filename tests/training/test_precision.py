from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from peakzoom.model.precision import slow_in
from peakzoom.training.check import gradient_error


@pytest.mark.parametrize("damage,off", [(lambda g: 2 * g, 1.0), (lambda g: g * torch.nan, float("inf"))])
def test_a_wrong_gradient_is_found(
    damage: Callable[[Tensor], Tensor], off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right gradient, rounded to half precision, is damaged as a faulty kernel would.

    It is that of float32: on some of the processors that run this test the one in half precision is not right.
    """
    assert gradient_error(torch.float32) == 0
    grad, right = torch.autograd.grad, {}

    def faulty(output: Tensor, leaf: Tensor, outer: Tensor) -> tuple[Tensor]:
        if leaf.dtype != torch.bfloat16:
            (right["found"],) = grad(output, leaf, outer)
            return (right["found"],)
        return (damage(right["found"].to(torch.bfloat16)),)

    monkeypatch.setattr(torch.autograd, "grad", faulty)
    assert gradient_error(torch.bfloat16) == pytest.approx(off, rel=0.05)


@pytest.mark.parametrize(
    "precision,device,capabilities,slow",
    [
        ("32-true", "cpu", {"architecture": "x86_64"}, False),
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "avx512_f": True}, True),
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "avx512_bf16": True}, False),
        ("bf16-mixed", "cpu", {"architecture": "x86_64", "amx_bf16": True}, False),
        ("16-mixed", "cpu", {"architecture": "x86_64", "avx512_bf16": True, "avx512_fp16": False}, True),
        ("16-mixed", "cpu", {"architecture": "x86_64", "amx_fp16": True}, False),
        ("bf16-mixed", "cuda", {"architecture": "x86_64"}, False),
        ("bf16-mixed", "cpu", {"architecture": "aarch64"}, False),  # nothing is known of it
        ("bf16-mixed", "cpu", None, False),  # an older PyTorch
    ],
)
def test_half_precision_without_instructions_for_it(
    precision: str,
    device: str,
    capabilities: dict[str, object] | None,
    slow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    said = slow_in(precision, torch.device(device))
    assert (said is not None) == slow
    assert said is None or precision in said
