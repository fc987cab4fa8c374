"""Eq. 1-4 of ``peakzoom.model`` against the plain readings in reference.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model import reference as ref

from peakzoom.model import (
    class_response_maps,
    evidence_map,
    find_peaks,
    frame_scores,
    further_peaks,
    normalise,
    response_map,
    top_k_entropy,
)

CLASSES = [2, 3, 5, 101]
SLICES = [1, 2, 4]
CELLS = [(1, 1), (3, 5), (7, 7), (6, 1)]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale).to(dtype)


def close(got: torch.Tensor, wanted: np.ndarray, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    assert tuple(got.shape) == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(got.double().numpy(), wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cells", CELLS, ids=str)
@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("classes", CLASSES)
def test_maps_and_scores(classes: int, slices: int, cells: tuple[int, int], dtype: torch.dtype) -> None:
    features = random((2, 6, slices, *cells), dtype, 1).relu()
    weight, bias = random((classes, 6), dtype, 2), random((classes,), dtype, 3)
    close(
        class_response_maps(features, weight),
        ref.class_response_maps(features.numpy(), weight.numpy()),
        dtype,
    )
    wanted = ref.frame_scores(features.numpy(), weight.numpy(), bias.numpy())
    close(frame_scores(features, weight, bias), wanted, dtype)


def test_scores_are_the_means_of_the_maps_plus_the_bias() -> None:
    features, weight, bias = (
        random((2, 6, 4, 3, 5), torch.float64, 1),
        random((5, 6), torch.float64, 2),
        torch.rand(5),
    )
    mean = class_response_maps(features, weight).mean((-2, -1)) + bias.double()[:, None]
    torch.testing.assert_close(frame_scores(features, weight, bias.double()), mean)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("classes", CLASSES)
def test_entropy(classes: int, slices: int, k: int, dtype: torch.dtype) -> None:
    scores = random((3, classes, slices), dtype, 4, scale=3.0)
    close(top_k_entropy(scores, k=k), ref.top_k_entropy(scores.numpy(), k), dtype)


def test_entropy_by_hand() -> None:
    """Two equal classes have log 2; ten equal classes have half of log 10, for only five are counted and not
    renormalised; one certain class has 0, also where the others underflow to a probability of 0."""
    np.testing.assert_allclose(top_k_entropy(torch.zeros(1, 2, 1, dtype=torch.float64)).item(), np.log(2))
    np.testing.assert_allclose(
        top_k_entropy(torch.zeros(1, 10, 1, dtype=torch.float64)).item(), np.log(10) / 2
    )
    certain = torch.zeros(1, 10, 1)
    certain[0, 3] = 1e4
    assert top_k_entropy(certain).item() == 0.0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cells", [(1, 1), (3, 5)], ids=str)
@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("classes", CLASSES)
def test_response(classes: int, slices: int, cells: tuple[int, int], dtype: torch.dtype) -> None:
    scores = random((4, classes, slices), dtype, 5)
    scores[::2] *= 40  # two clips are certain, two are not
    entropy = ref.top_k_entropy(scores.numpy())
    assert (entropy < 0.2).any() and (entropy >= 0.2).any()
    maps = random((4, classes, slices, *cells), dtype, 6)
    close(response_map(maps, scores), ref.response_map(maps.numpy(), scores.numpy()), dtype)


@pytest.mark.parametrize(("delta", "top"), [(0.0, 5), (10.0, 5), (0.7, 3), (0.2, 1)])
def test_response_options(delta: float, top: int) -> None:
    scores, maps = random((4, 7, 2), torch.float64, 7, scale=2.0), random((4, 7, 2, 3, 3), torch.float64, 8)
    wanted = ref.response_map(maps.numpy(), scores.numpy(), delta, top)
    close(response_map(maps, scores, delta=delta, top=top), wanted, torch.float64)


def test_response_with_one_class_certain_in_one_slice_only() -> None:
    """The choice between one map and five is made for each slice by itself."""
    scores = torch.zeros(1, 6, 2)
    scores[0, 4, 0] = 50.0
    scores[0, 0, 1] = -1.0
    maps = torch.arange(6.0)[None, :, None, None, None].expand(1, 6, 2, 2, 2)
    response = response_map(maps, scores)
    assert response[0, 0].unique().tolist() == [4.0]
    assert response[0, 1].unique().tolist() == [15.0]  # 1 + 2 + 3 + 4 + 5: class 0 is the sixth


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (4, 31, 31), (5, 1), (2, 3, 1, 1), (3, 4, 9)], ids=str)
def test_normalise_and_peaks(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    response = random(shape, dtype, 9, scale=3.0)
    close(normalise(response), ref.normalise(response.numpy()), dtype)
    peaks = find_peaks(response)
    assert peaks.dtype == torch.bool
    np.testing.assert_array_equal(peaks.numpy(), ref.find_peaks(response.numpy()))


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("shape", [(40, 7, 7), (40, 5, 9), (40, 1, 8), (10, 31, 31)], ids=str)
def test_peaks_with_many_ties(shape: tuple[int, ...], levels: int) -> None:
    """Few levels make plateaus and ties everywhere, also on edges and corners. Integers: the mean is exact."""
    response = torch.from_numpy(np.random.default_rng(levels).integers(0, levels, size=shape)).to(
        torch.float64
    )
    np.testing.assert_array_equal(find_peaks(response).numpy(), ref.find_peaks(response.numpy()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e30, 1e-30])
@pytest.mark.parametrize("shape", [(2, 7, 7), (31, 31), (1, 1)], ids=str)
def test_flat_maps(shape: tuple[int, ...], value: float, dtype: torch.dtype) -> None:
    response = torch.full(shape, value, dtype=dtype)
    assert normalise(response).eq(0).all()
    assert not find_peaks(response).any()
    assert not find_peaks(normalise(response)).any()


@pytest.mark.parametrize("corner", [(0, 0), (0, 6), (4, 0), (4, 6)], ids=str)
def test_a_corner_can_be_a_peak(corner: tuple[int, int]) -> None:
    response = torch.zeros(5, 7)
    response[corner] = 1.0
    assert find_peaks(response).nonzero().tolist() == [list(corner)]


def test_negative_responses_have_peaks_too() -> None:
    """Padding the window with zeros would hide a peak on the border of a negative map."""
    response = -torch.ones(4, 4)
    response[0, 3] = -0.5
    assert find_peaks(response).nonzero().tolist() == [[0, 3]]


def test_a_plateau_has_its_first_cell_only() -> None:
    response = torch.zeros(6, 6)
    response[2:4, 2:4] = 1.0
    assert find_peaks(response).nonzero().tolist() == [[2, 2]]


def test_a_local_maximum_below_the_mean_is_no_peak() -> None:
    response = torch.full((7, 7), 10.0)
    response[:, 4:] = 0.0
    response[3, 5] = 1.0  # the largest of its window, far below the mean
    peaks = find_peaks(response)
    assert peaks[0, 0] and not peaks[3, 5]


def test_one_flat_map_does_not_disturb_the_others() -> None:
    response = random((3, 5, 5), torch.float32, 10)
    response[1] = 0.1
    got = normalise(response)
    close(got, ref.normalise(response.numpy()), torch.float32)
    assert (
        find_peaks(response)[0].any() and not find_peaks(response)[1].any() and find_peaks(response)[2].any()
    )


@pytest.mark.parametrize("offset", [0.0, -3.0, 10.0])
@pytest.mark.parametrize("noise", [1e-7, 1e-6, 5e-6])
def test_noise_breaks_no_tie(noise: float, offset: float) -> None:
    """Ties to the first cell in row-major order, whatever rounding adds: plateaus of few levels, also at the border."""
    rng = np.random.default_rng(11)
    levels = rng.integers(0, 5, size=(40, 9, 11)).repeat(2, axis=1).repeat(2, axis=2)
    wanted = ref.find_peaks(levels.astype(np.float64))
    for scale in (1.0, 0.01, 1000.0):
        noisy = scale * (levels + 4 * noise * rng.uniform(-1, 1, levels.shape) + offset)
        np.testing.assert_array_equal(find_peaks(torch.from_numpy(noisy)).numpy(), wanted)


def test_a_difference_of_a_thousandth_is_no_tie() -> None:
    response = torch.zeros(5, 5)
    response[2, 2], response[2, 3], response[3, 1] = 0.998, 1.0, 0.999
    assert find_peaks(response).nonzero().tolist() == [[2, 3], [3, 1]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cells", CELLS, ids=str)
@pytest.mark.parametrize("classes", [1, *CLASSES])
def test_evidence_map(classes: int, cells: tuple[int, int], dtype: torch.dtype) -> None:
    maps, scores = random((2, classes, 3, *cells), dtype), random((2, classes, 3), dtype, 1, scale=3.0)
    wanted = np.zeros((2, 3, *cells))
    for clip in range(2):
        for slice_ in range(3):
            y = scores[clip, :, slice_].double().numpy()
            p = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
            for label in range(classes):
                wanted[clip, slice_] += (p[label] - 1 / classes) * maps[clip, label, slice_].double().numpy()
    close(evidence_map(maps, scores), wanted, dtype)


@pytest.mark.parametrize("classes", [2, 6, 101])
def test_evidence_does_not_see_what_all_classes_share(classes: int) -> None:
    """The softmax does not see it either; the paper's response does."""
    maps, scores = random((2, classes, 4, 6, 6), torch.float64), random((2, classes, 4), torch.float64, 1)
    common = 10 * random((2, 1, 4, 6, 6), torch.float64, 2)
    torch.testing.assert_close(evidence_map(maps + common, scores), evidence_map(maps, scores))
    assert not torch.allclose(response_map(maps + common, scores), response_map(maps, scores))


def test_five_of_six_classes_are_the_sixth_upside_down() -> None:
    """Why there is an evidence map: class weights that sum to zero, as a softmax's may, and no slice that is sure."""
    maps, scores = random((3, 6, 4, 6, 6), torch.float64), random((3, 6, 4), torch.float64, 1, scale=0.5)
    maps = maps - maps.mean(1, keepdim=True)
    worst = scores.argmin(1)
    turned = -maps.gather(1, worst[:, None, :, None, None].expand(3, 1, 4, 6, 6))[:, 0]
    torch.testing.assert_close(response_map(maps, scores), turned)


def plain_further_peaks(
    response: np.ndarray, peaks: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """One map, one peak and one cell at a time."""
    side = len(response)
    left = response.copy()
    for i in range(side):
        for j in range(side):
            erased = 0.0
            for row, column in zip(*peaks.nonzero(), strict=True):
                square = ((i - row) / side) ** 2 + ((j - column) / side) ** 2
                erased = max(erased, response[row, column] * np.exp(-square / (2 * reach**2)))
            left[i, j] *= 1 - erased
    more = find_peaks(torch.from_numpy(left)).numpy() & ~peaks
    return np.where(more, left, response), peaks | more


@pytest.mark.parametrize("reach", [0.05, 0.15, 0.4])
@pytest.mark.parametrize("side", [1, 2, 7, 31])
def test_further_peaks(side: int, reach: float) -> None:
    rough = random((4, 5, 5), torch.float64, side)
    smooth = torch.nn.functional.interpolate(
        rough[:, None], (side, side), mode="bilinear", align_corners=True
    )
    response = normalise(smooth[:, 0])
    peaks = find_peaks(response)
    got, all_peaks = further_peaks(response, peaks, reach)
    for index in range(len(response)):
        wanted, where = plain_further_peaks(response[index].numpy(), peaks[index].numpy(), reach)
        np.testing.assert_allclose(got[index].numpy(), wanted, atol=1e-12)
        assert (all_peaks[index].numpy() == where).all()
    assert (all_peaks | ~peaks).all()  # none is lost
    assert got[peaks].equal(response[peaks]) and (got <= response).all() and (got >= 0).all()


def test_one_broad_peak_leaves_something_for_the_complementary_side() -> None:
    line = torch.arange(31) / 31
    response = normalise(torch.exp(-((line[:, None] - 0.4) ** 2 + (line - 0.6) ** 2) / 0.2))
    peaks = find_peaks(response)
    assert peaks.sum() == 1
    _, more = further_peaks(response, peaks, 0.15)
    assert more.sum() > 1


@pytest.mark.parametrize("shape", [(31, 31), (2, 31, 31), (2, 3, 31, 31)])
def test_a_flat_map_has_no_further_peaks(shape: tuple[int, ...]) -> None:
    response = torch.zeros(shape)
    got, peaks = further_peaks(response, find_peaks(response), 0.15)
    assert got.shape == shape and not peaks.any()
