"""Eq. 5-7 (``SparseAttention``) against the plain reading in reference.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model import reference as ref
from torch import nn

from peakzoom.model import SparseAttention

MODES = ["sample", "expected", "threshold"]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def case(
    number: int, grid: int, dtype: torch.dtype, share: float = 0.05, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Responses in [0.1, 1], random peaks, draws."""
    rng = np.random.default_rng(seed)
    response = torch.from_numpy(rng.uniform(0.1, 1.0, (number, grid, grid))).to(dtype)
    peaks = torch.from_numpy(rng.random((number, grid, grid)) < share)
    phi = torch.from_numpy(rng.random((number, grid, grid))).to(dtype)
    return response, peaks, phi


def double(**options: object) -> SparseAttention:
    """A float64 module whose betas are not rounded to float32 on the way."""
    module = SparseAttention(**options).double()
    with torch.no_grad():
        module.beta_dis.fill_(options.get("beta_dis", 0.127))
        module.beta_com.fill_(options.get("beta_com", 0.424))
    return module


def run(module: SparseAttention, *inputs: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """The mode named in the constructor is what evaluation uses; ``sample`` takes the draws that are passed."""
    module = module.eval()
    with torch.no_grad():
        q_dis, q_com = module(*inputs)
    return q_dis.double().numpy(), q_com.double().numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("grid", [7, 12, 31])
@pytest.mark.parametrize("mode", MODES)
def test_attention(mode: str, grid: int, number: int, dtype: torch.dtype) -> None:
    share = 0.02 if grid == 31 else 0.1
    response, peaks, phi = case(number, grid, dtype, share, seed=grid)
    module = double(mode=mode) if dtype == torch.float64 else SparseAttention(mode=mode)
    got = run(module, response, peaks, phi if mode == "sample" else None)
    wanted = ref.sparse_attention(response.numpy(), peaks.numpy(), phi.numpy(), mode)
    for q, r in zip(got, wanted, strict=True):
        np.testing.assert_allclose(q, r, rtol=0, atol=TOLERANCE[dtype] * max(1.0, r.max()))


def test_other_constants() -> None:
    response, peaks, phi = case(2, 9, torch.float64, 0.2, seed=3)
    constants = {"beta_dis": 0.3, "beta_com": 0.2, "base": 0.01}
    for mode in MODES:
        got = run(
            double(mode=mode, **constants),
            response,
            peaks,
            phi if mode == "sample" else None,
        )
        wanted = ref.sparse_attention(response.numpy(), peaks.numpy(), phi.numpy(), mode, **constants)
        for q, r in zip(got, wanted, strict=True):
            np.testing.assert_allclose(q, r, rtol=1e-11)


@pytest.mark.parametrize("faintest", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_faint_peaks_count_as_the_faintest(mode: str, faintest: float) -> None:
    response, peaks, phi = case(3, 9, torch.float64, 0.2, seed=4)
    got = run(double(mode=mode, faintest=faintest), response, peaks, phi if mode == "sample" else None)
    wanted = ref.sparse_attention(response.numpy(), peaks.numpy(), phi.numpy(), mode, faintest=faintest)
    for q, r in zip(got, wanted, strict=True):
        np.testing.assert_allclose(q, r, rtol=1e-11)
    most = peaks.flatten(1).sum(1).max().item() / faintest  # no peak weighs more than 1 / faintest
    assert got[1].max() <= 0.09 + most + 1e-9


def test_published_constants_and_learnable_betas() -> None:
    module = SparseAttention()
    assert isinstance(module.beta_dis, nn.Parameter) and isinstance(module.beta_com, nn.Parameter)
    assert module.beta_dis.item() == pytest.approx(0.09 * 2**0.5, abs=5e-4)
    assert module.beta_com.item() == pytest.approx(0.3 * 2**0.5, abs=5e-4)
    assert {name for name, _ in module.named_parameters()} == {"beta_dis", "beta_com"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, 3])
def test_no_peaks_is_flat(mode: str, number: int) -> None:
    response, peaks, phi = case(number, 31, torch.float32)
    for q in run(
        SparseAttention(mode=mode), response, torch.zeros_like(peaks), phi if mode == "sample" else None
    ):
        assert np.unique(q).tolist() == [np.float32(0.09)]


@pytest.mark.parametrize("mode", MODES)
def test_maps_without_peaks_beside_maps_with(mode: str) -> None:
    """Maps of one batch have different numbers of peaks; the padding of the shorter lists must not show."""
    response, peaks, phi = case(4, 9, torch.float64, 0.3, seed=5)
    peaks[1] = False
    peaks[2] = False
    peaks[2, 8, 8] = True
    together = run(SparseAttention(mode=mode).double(), response, peaks, phi)
    for n in range(4):
        alone = run(
            SparseAttention(mode=mode).double(), response[n : n + 1], peaks[n : n + 1], phi[n : n + 1]
        )
        for q, r in zip(together, alone, strict=True):
            np.testing.assert_allclose(q[n], r[0], rtol=1e-12)
    np.testing.assert_allclose(together[0][1], 0.09, rtol=1e-7)


def test_sampled_sets_are_a_split() -> None:
    """Every peak goes to exactly one set: a response of 0.5 to P_dis at phi = 0.5 and below, else to P_com."""
    response = torch.full((3, 5, 5), 0.5)
    peaks = torch.zeros(3, 5, 5, dtype=torch.bool)
    peaks[:, 2, 2] = True
    phi = torch.tensor([0.25, 0.5, 0.75])[:, None, None].expand(3, 5, 5).contiguous()
    q_dis, q_com = run(SparseAttention(mode="sample", base=0.0), response, peaks, phi)
    np.testing.assert_allclose(q_dis[:, 2, 2], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(q_com[:, 2, 2], [0.0, 0.0, 2.0])


def test_expected_is_the_mean_of_sample() -> None:
    """The mean over an even grid of 1000 draws: every peak is below the draw in its share of them."""
    response, peaks, _ = case(1, 7, torch.float64, 0.2, seed=7)
    response = (response * 100).round() / 100  # whole numbers of draws
    draws = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    phi = draws[:, None, None].expand(100, 7, 7)
    many = run(
        SparseAttention(mode="sample").double(), response.expand(100, 7, 7), peaks.expand(100, 7, 7), phi
    )
    for mean, expected in zip(many, run(SparseAttention().double(), response, peaks, None), strict=True):
        np.testing.assert_allclose(mean.mean(0), expected[0], rtol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-8, 1e-3])
def test_tiny_responses_stay_finite(mode: str, value: float) -> None:
    response = torch.full((2, 9, 9), value)
    response[:, 0, 0] = 1.0
    peaks = torch.zeros(2, 9, 9, dtype=torch.bool)
    peaks[:, 4, 4] = True
    peaks[:, 0, 0] = True
    phi = torch.full((2, 9, 9), 0.5)
    module = SparseAttention(mode=mode)
    assert module.faintest > 0
    q_dis, q_com = module.eval()(response, peaks, phi if mode == "sample" else None)
    assert q_dis.isfinite().all() and q_com.isfinite().all()
    (q_dis.sum() + q_com.sum()).backward()
    for beta in (module.beta_dis, module.beta_com):
        assert beta.grad is not None and beta.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_the_betas(mode: str) -> None:
    """Against finite differences, float64, with the draws fixed."""
    response, peaks, phi = case(2, 9, torch.float64, 0.1, seed=9)
    module = SparseAttention(mode=mode).double().eval()
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 2, 9, 9)))

    def value() -> torch.Tensor:
        q_dis, q_com = module(response, peaks, phi if mode == "sample" else None)
        return (q_dis * weights[0]).sum() + (q_com * weights[1]).sum()

    value().backward()
    for beta in (module.beta_dis, module.beta_com):
        assert beta.grad is not None and beta.grad.abs().item() > 1e-3
        step = 1e-6
        with torch.no_grad():
            beta += step
            high = value().item()
            beta -= 2 * step
            low = value().item()
            beta += step
        assert (high - low) / (2 * step) == pytest.approx(beta.grad.item(), rel=1e-6)
