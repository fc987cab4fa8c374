"""benchmarks/readings.py, which builds no network, counts what the networks cost, and what choices.md says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import readings
import torch

from peakzoom.inference.cost import multiply_adds
from peakzoom.model import BACKBONES

CLASSES = 101
READINGS = {  # places of strides: the stem's two convolutions, then stages 2 to 7
    "tcnn": readings.Reading("1x3x3", "3x3x3", (0, 1, 3, 4, 5), (0, 6)),
    "tcnn_16": readings.Reading("2+1", "2+1", (0, 1, 3, 4, 5), (4, 6)),
    "tcnn_local": readings.Reading("3x1x1", "3x1x1", (0, 1, 2, 4, 7), (4,)),
}


@pytest.mark.parametrize("name", list(READINGS))
def test_a_reading_costs_what_its_network_does(name: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](CLASSES)
    found = readings.count(READINGS[name])
    assert found is not None
    classifier = network.num_features * CLASSES / 1e9
    assert found.cost + classifier == pytest.approx(multiply_adds(network, 16, 224), rel=1e-3)
    assert sorted(found.frames) == (list(range(0, 16, 4)) if name == "tcnn" else list(range(16)))


def test_the_page_says_how_many_readings_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["readings.py"])
    readings.main()
    words = capsys.readouterr().out.split()
    tried, near, every = words[0], words[9], words[16]
    page = " ".join((Path(__file__).parents[1] / "docs" / "choices.md").read_text(encoding="utf-8").split())
    assert f"Of {tried} combinations in which every dilation" in page
    assert f"{near} lie within 0.1 G, and {every} of these see all 16 frames" in page
