from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from peakzoom.model.backbones import BACKBONES, FIXED_LENGTH
from peakzoom.model.precision import slow_in
from peakzoom.training.gradients import wrong_gradients


@pytest.mark.parametrize(
    "damage,off",
    [(lambda g: 2 * g, 1.0), (lambda g: -g, 2.0), (lambda g: g * torch.nan, float("inf"))],
)
def test_a_wrong_gradient_is_found(damage: Callable[[Tensor], Tensor], off: float) -> None:
    """The gradient of one layer is damaged on its way out of PyTorch, as a faulty kernel would."""
    backbone = BACKBONES["tcnn_xs"](5, width=0.25)
    weight = backbone.get_parameter("blocks.1.conv2.0.weight")
    weight.register_hook(damage)
    found = wrong_gradients(backbone, 8, 48)
    assert list(found) == ["blocks.1.conv2.0"]
    assert found["blocks.1.conv2.0"] == pytest.approx(off, rel=0.05)


@pytest.mark.parametrize("backbone", ["tcnn_xs", "tsm", "trn", "r2plus1d_18", "i3d"])
def test_float32_against_itself_is_right(backbone: str) -> None:
    options = {"frames": 8} if backbone in FIXED_LENGTH else {}
    network = BACKBONES[backbone](5, width=0.1, **options).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    with torch.autocast("cpu", enabled=False):
        assert wrong_gradients(network, 8, 64, torch.float32) == {}
    assert torch.equal(state, torch.get_rng_state()) and not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


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
