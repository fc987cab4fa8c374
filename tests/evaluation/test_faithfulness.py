"""Masks of equal size, a blur by the book, and networks of which the truth is known."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from explanation.colours import Colours, recognizer, write_squares
from torch import Tensor

from peakzoom.data.entries import Entry
from peakzoom.evaluation import faithfulness
from peakzoom.evaluation.faithfulness import attended, blur, centre, measure_faithfulness, moved
from peakzoom.evaluation.files import write_faithfulness
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views


@pytest.mark.parametrize("side", [16, 33, 96])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_regions_are_equally_large(side: int, share: float) -> None:
    generator = torch.Generator().manual_seed(side)
    responses = torch.rand((2, 3, 31, 31), generator=generator)
    responses[0, 0] = 0.5  # flat: ties must not make it larger
    mask = attended(responses, side, share)
    size = round(share * side * side)
    other = moved(mask, generator)
    for each in (mask, other, centre(side, share).expand_as(mask)):
        assert each.dtype == torch.bool and each.shape == (2, 3, side, side)
        assert (each.sum((2, 3)) == size).all()
    whole = torch.nn.functional.interpolate(responses, (side, side), mode="bilinear", align_corners=True)
    for inside, values in zip(mask.flatten(0, 1), whole.flatten(0, 1), strict=True):
        assert values[inside].min() >= values[~inside].max()
    # One offset a clip: the frames of a clip keep their shapes and their places to each other.
    for before, after in zip(mask, other, strict=True):
        found = [
            (y, x)
            for y in range(side)
            for x in range(side)
            if torch.equal(before[1].roll((y, x), (0, 1)), after[1])
        ]
        assert any(torch.equal(before.roll(at, (1, 2)), after) for at in found)


def test_the_centre_is_round_and_in_the_middle() -> None:
    mask = centre(64, 0.2)
    y, x = mask.nonzero().T.double()
    assert float(y.mean()) == pytest.approx(31.5, abs=0.2) and float(x.mean()) == pytest.approx(31.5, abs=0.2)
    reach = ((y - 31.5) ** 2 + (x - 31.5) ** 2).sqrt().max()
    assert float(reach) == pytest.approx(math.sqrt(0.2 * 64 * 64 / math.pi), abs=1)


@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.5])
def test_blur_by_the_book(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (1, 2, 3, 19, 19), generator=generator, dtype=torch.uint8)
    found = blur(views, sigma)
    assert found.dtype == torch.uint8 and found.shape == views.shape
    frame = views[0, 1, 2].double().numpy()
    reach = round(3 * sigma)
    for row, column in [(0, 0), (9, 9), (18, 3), (7, 18)]:
        total = weight = 0.0
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                share = math.exp(-(dy * dy + dx * dx) / (2 * sigma**2))
                total += share * frame[min(max(row + dy, 0), 18), min(max(column + dx, 0), 18)]
                weight += share
        assert abs(int(found[0, 1, 2, row, column]) - total / weight) <= 0.51


class ByTheBorder(Colours):
    """Its maps show colours, but it answers red wherever the top left corner is bright, whatever else is there."""

    def features(self, video: Tensor) -> Tensor:
        cells = super().features(video)
        corner = video[:, :, :, :4, :4].mean((1, 2, 3, 4), keepdim=True)
        spread = cells - cells.mean((2, 3, 4), keepdim=True)  # where colours are, without how much of them
        return spread + torch.cat((6 * (corner - 0.2), 0 * corner, 0 * corner), 1)


def entries(folder: Path) -> list[Entry]:
    files = [
        write_squares(folder / f"{name}{number}.mov", lambda _, c=name, n=number: [(c, 0.3 + 0.1 * n, 0.6)])
        for name in ("red", "green")
        for number in range(3)
    ]
    return [Entry(file, 0, "test", file.stem[-1]) for file in files]


PROTOCOL = Views(clips=2, crops=1)


def test_a_network_that_looks_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faithfulness, "DRAWS", 5)
    found = measure_faithfulness(recognizer(), entries(tmp_path), PROTOCOL)
    assert [each.label for each in found.drops] == ["red"] * 3 + ["green"] * 3
    for each in found.drops:
        assert each.score > 0.9 and each.attended > 0.2 and each.attended > each.random
    test = found.test()
    assert test.difference > 10 and test.units == "groups" and test.count == 3
    again = measure_faithfulness(recognizer(), entries(tmp_path), PROTOCOL)
    assert again.drops == found.drops
    monkeypatch.setattr(faithfulness, "SEED", 1)
    other = measure_faithfulness(recognizer(), entries(tmp_path), PROTOCOL)
    assert [each.attended for each in other.drops] == [each.attended for each in found.drops]
    assert [each.random for each in other.drops] != [each.random for each in found.drops]


def test_a_network_that_looks_elsewhere_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faithfulness, "DRAWS", 8)
    honest = recognizer()
    model = PeakZoom(ByTheBorder(32), 3, classes=honest.classes, preprocess=honest.preprocess.to_dict())
    model.start_heads_from_original()
    found = measure_faithfulness(Recognizer.of(model, "cpu"), entries(tmp_path)[:3], PROTOCOL)
    assert {each.label for each in found.drops} == {"red"}
    assert all(each.attended < 0.05 for each in found.drops)
    assert found.test().difference < 1


def test_what_is_written(tmp_path: Path) -> None:
    listed = [*entries(tmp_path), Entry(tmp_path / "absent.mov", 0, "test", None)]
    found = measure_faithfulness(recognizer(), listed, PROTOCOL)
    assert len(found.drops) == len(listed) - 1
    assert [each.path for each in found.problems] == [str(listed[-1].path)]
    write_faithfulness(tmp_path, found)
    with (tmp_path / "faithfulness.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    told = json.loads((tmp_path / "faithfulness.json").read_text())
    for row in told["classes"]:
        part = [each for each in rows if row["class"] in ("all", each["label"])]
        assert row["videos"] == len(part)
        for key in ("score", "attended", "random", "centre"):
            assert row[key] == pytest.approx(np.mean([float(each[key]) for each in part]))
    expected = 100 * np.mean([float(each["attended"]) - float(each["random"]) for each in rows])
    assert told["attended_less"]["random"]["difference"] == pytest.approx(expected)


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not one of the videos"):
        measure_faithfulness(recognizer(), [Entry(tmp_path / "absent.mov", 0, "test", None)], PROTOCOL)
