"""``config.json`` from anyone: whatever is in it, loading gives a model that predicts, or one sentence."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peakzoom.inference.engines.base import Description
from peakzoom.inference.recognizer import load
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.backbones import TORCHVISION, options_for
from peakzoom.model.pretrained import expect_fit
from peakzoom.model.schema import CLIP
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess

PRE = {**Preprocess(size=32, frames=4, canvas=(36, 40)).to_dict()}
HUGE = 10**9
VALUES: list[Any] = [
    *(None, "x", "", [], [1], {}, {"a": 1}, True, -1, 0, 0.5, 1e300, HUGE, 10**30, -1e300, 2, 7.0),
    *(math.nan, math.inf, -math.inf, "1" * 500, [None], [[]], 3 * [math.nan], 3 * ["a"], "\ud800", "a\nb"),
]
WHOLE = {  # the whole file
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "text": b'"x"',
    "true": b"true",
    "NaN": b"NaN",
    "nothing in it": b"{}",
    "deep": 100_000 * b"[",
    "deeper": 50_000 * b'{"a":',
    "many digits": b'{"grid": ' + 5000 * b"1" + b"}",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of three classes."""
    torch.manual_seed(0)
    model = PeakZoom(
        *("tcnn_xs", 3),
        width=0.125,
        backbone_options={"max_stride": 16},
        faintest=0.01,
        classes=("a", "b", "c"),
        preprocess=PRE,
    )
    folder = tmp_path_factory.mktemp("hostile")
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture
def written(saved: Path) -> Iterator[dict[str, Any]]:
    """What the file says; it says that again afterwards."""
    file = saved / "config.json"
    text = file.read_text()
    yield json.loads(text)
    file.unlink()
    file.write_text(text)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all values within plain data; of a list, the first."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else [0] if isinstance(value, list) and value else ():
        yield from paths(value[key], (*path, key))


def with_value(values: dict[str, Any], path: tuple[Any, ...], new: Any) -> str:
    """The same file with one other value."""
    copied = json.loads(json.dumps(values))
    within = copied
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = new
    return json.dumps(copied)


def outcome(folder: Path, text: str | bytes) -> str:
    """Either "prediction" or "sentence"; anything else is raised."""
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    try:
        recognizer = load(folder, "cpu")
    except UserError as error:
        said = str(error)
        assert said.isprintable() and str(folder) in said and len(said) < 1000, said
        return "sentence"
    views = torch.full((1, *recognizer.preprocess.view_shape), 100, dtype=torch.uint8)
    logits = recognizer.engine(views)["fused"]
    assert logits.shape == (1, 3) and np.isfinite(logits.numpy()).all()
    assert len(recognizer.classes) == 3 and all(isinstance(name, str) for name in recognizer.classes)
    return "prediction"


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_one_value_at_a_time(saved: Path, written: dict[str, Any], every: int) -> None:
    counts: Counter[str] = Counter()
    for path, value in list(product(paths(written), VALUES))[::every]:
        counts[outcome(saved, with_value(written, path, value))] += 1
    assert counts["prediction"] > 20 / every and counts["sentence"] > 500 / every, counts


def test_keys_that_are_missing_or_of_something_else(saved: Path, written: dict[str, Any]) -> None:
    for key in ("backbone", "num_classes", "classes", "preprocess", "branches", "grid"):
        outcome(saved, json.dumps({name: value for name, value in written.items() if name != key}))
    for key in ("config", "token", "revision", "cache_dir", "model_id", "self", "strict", "map_location"):
        assert outcome(saved, json.dumps({**written, key: "x"})) == "prediction"


@pytest.mark.parametrize("kind", WHOLE)
def test_another_file_altogether(saved: Path, written: dict[str, Any], kind: str) -> None:
    assert outcome(saved, WHOLE[kind]) == "sentence"


def test_a_file_that_is_cut_or_none(saved: Path, written: dict[str, Any]) -> None:
    whole = json.dumps(written).encode()
    for length in range(0, len(whole), 97):
        assert outcome(saved, whole[:length]) == "sentence"
    file = saved / "config.json"
    file.unlink()
    with pytest.raises(UserError, match="does not exist"):
        load(saved, "cpu")
    if hasattr(os, "mkfifo"):  # reading one would wait for ever
        os.mkfifo(file)
        with pytest.raises(UserError, match="it is no file"):
            load(saved, "cpu")


@pytest.mark.parametrize(
    "changed,said",
    [
        ({"num_classes": 2, "classes": ["a", "b"]}, r"fc\.weight is \(3, 24\) there and \(2, 24\) here"),
        ({"num_classes": 2}, "3 class names for 2 classes"),
        ({"classes": ["a", "a", "b"]}, "expected a list of different names"),
        ({"branches": ["original"]}, "it has .* beside"),
        ({"backbone": "tcnn_s"}, "does not fit config.json"),
        ({"backbone": "trn", "backbone_options": {"frames": 8}}, "this TRN was made for 8"),
        ({"backbone_options": {"frames": 4}}, "tells of no network that can be"),
        ({"backbone_options": {"pool": "best:0"}}, "pooling is 'best:0'"),
        ({"backbone_options": {"pool": "best:" + 5000 * "9"}}, "tells of no network|no finite"),
        ({"num_classes": HUGE, "classes": None}, "expected a whole number from 1 to 1000000"),
        ({"preprocess": {**PRE, "size": 4000, "frames": 16, "canvas": [4000, 4000]}}, "MB, expected at most"),
        ({"preprocess": {**PRE, "size": 50}}, "expected two sides of at least 50"),
        ({"preprocess": {**PRE, "smell": 1}}, "preprocess has smell"),
        ({"preprocess": None}, "does not say how its clips were made"),
    ],
)
def test_what_is_said(saved: Path, written: dict[str, Any], changed: dict[str, Any], said: str) -> None:
    (saved / "config.json").write_text(json.dumps({**written, **changed}))
    with pytest.raises(UserError, match=said) as caught:
        load(saved, "cpu")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - TORCHVISION))
def test_every_network_can_be_asked_without_numbers(name: str, tmp_path: Path) -> None:
    """A network that cannot would be refused when it is loaded."""
    options = options_for(name, 32, 8, 64)
    made = {"num_classes": 2, "width": 0.125, "backbone_options": options}
    clip = {"size": 64, "frames": 8, "canvas": (64, 64)}
    with torch.device("meta"):  # or its weights would be drawn
        shapes = {key: value.shape for key, value in PeakZoom(name, **made).state_dict().items()}
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "model.safetensors")
    expect_fit(lambda: PeakZoom(name, **made, preprocess=clip), tmp_path)
    with pytest.raises(UserError, match="does not fit"):
        expect_fit(lambda: PeakZoom(name, **{**made, "num_classes": 3}, preprocess=clip), tmp_path)


def test_the_rules_know_what_a_clip_is_by_default() -> None:
    assert {**asdict(Preprocess()), **CLIP} == asdict(Preprocess())


@pytest.mark.parametrize("path", [("classes",), ("preprocess",), ("preprocess", "size"), ("outputs",)])
def test_what_an_exported_file_says_of_itself(path: tuple[str, ...]) -> None:
    good = json.loads(Description(["a", "b"], Preprocess(), ["original", "fused"]).to_json())
    assert Description.from_json(json.dumps(good), "x.onnx").classes == ["a", "b"]
    for value in (None, [1], {"a": []}, -1, math.nan, HUGE, 3 * ["a"]):
        with pytest.raises(UserError, match=r"x\.onnx does not name its classes and clips"):
            Description.from_json(with_value(good, path, value), "x.onnx")
    for text in (None, "", "[]", "null", 100_000 * "["):
        with pytest.raises(UserError, match=r"x\.onnx does not name"):
            Description.from_json(text, "x.onnx")
