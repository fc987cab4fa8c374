"""Start weights of the package: each file fits its network and its card, and its features tell actions apart."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import torch
from safetensors.torch import load_file

from peakzoom.data.synthetic.composed.paint import paint
from peakzoom.data.synthetic.composed.scene import CLASSES, compose
from peakzoom.model import BACKBONES, starts
from peakzoom.model.public import public_weights
from peakzoom.model.starts import FOLDER, Start, expect_fit, fitting_start, start_of
from peakzoom.training.recipes import small
from peakzoom.utils.errors import UserError

ALL = starts.starts()
named = pytest.mark.parametrize("start", ALL, ids=lambda start: start.name)


def test_the_folder_holds_the_weights_of_the_cards_and_no_more() -> None:
    expected = {f"{start.name}.safetensors" for start in ALL} | {"cards.json"}
    expected |= {"public.toml", *(each.class_list for each in public_weights().values() if each.class_list)}
    assert {file.name for file in FOLDER.iterdir()} == expected and len(ALL) >= 4
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 10e6
    pre = small().preprocess
    assert {(start.mean, start.std) for start in ALL} == {(pre.mean, pre.std)}


@named
def test_a_file_is_that_of_its_card_and_fits_its_network(start: Start) -> None:
    assert hashlib.sha256(start.file.read_bytes()).hexdigest() == start.card["sha256"]
    stored = load_file(start.file)
    for name, value in stored.items():
        counter = name.endswith("num_batches_tracked")
        expected = torch.float16 if value.dim() > 1 else torch.int64 if counter else torch.float32
        assert value.dtype == expected, name
        assert value.isfinite().all(), name
    torch.manual_seed(1)
    network = BACKBONES[start.network](7, width=start.width)
    head = network.fc.weight.detach().clone()
    start.load(network)
    own = network.state_dict()
    assert own.keys() - stored.keys() == {"fc.weight", "fc.bias"} and torch.equal(network.fc.weight, head)
    for name, value in stored.items():
        assert torch.equal(own[name], value.to(own[name].dtype)), name
    learned = sum(value.numel() for value in network.parameters())
    assert start.parameters == learned - network.fc.weight.numel() - network.fc.bias.numel()
    assert start.card["classes"] == len(CLASSES) and 10 < start.card["accuracy"] < 100


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Sixteen clips of each of three actions (48, 3, T, S, S), of a seed that no training and no test of them had."""
    pre = small().preprocess
    frames = [
        paint(compose(77, number, pre.frames, label), pre.size)
        for label in (0, len(CLASSES) // 2, len(CLASSES) - 1)
        for number in range(16)
    ]
    pixels = torch.stack(frames).float() / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (pre.mean, pre.std))
    return ((pixels - mean) / std).transpose(1, 2)


@torch.no_grad()
def separated(network: torch.nn.Module, clips: torch.Tensor) -> float:
    """Share of clips that are nearer to the mean feature of their class, without themselves, than to the others'."""
    network.eval()
    features = torch.cat([network.features(part).mean((2, 3, 4)) for part in clips.split(8)])
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    labels = torch.arange(3).repeat_interleave(len(clips) // 3)
    right = 0
    for place, label in enumerate(labels):
        others = torch.arange(len(labels)) != place
        means = torch.stack([features[others & (labels == each)].mean(0) for each in range(3)])
        right += int((features[place] - means).norm(dim=1).argmin() == label)
    return right / len(labels)


@pytest.mark.slow  # painting takes a second a clip
def test_features_of_a_start_tell_actions_apart(clips: torch.Tensor) -> None:
    start = start_of("tcnn_xs_local-0.5")
    assert start is not None
    torch.manual_seed(0)
    network = BACKBONES[start.network](len(CLASSES), width=start.width, max_stride=16)
    before = separated(network, clips)
    start.load(network)
    after = separated(network, clips)
    assert after >= 0.8 and after > before + 0.15, (before, after)


def test_which_start_fits() -> None:
    start = start_of("tcnn_xs_local-1")
    assert start is not None and start_of("tcnn_xs_local") is None
    own = (start.network, start.width, start.mean, start.std)
    assert fitting_start(*own) is start
    assert fitting_start("tcnn_xs_local", 1, start.mean, start.std) is start
    others = {
        "give --model tcnn_xs_local --set width=1, or --init none": [
            ("tcnn", 1.0, start.mean, start.std),
            ("tcnn_xs_local", 0.75, start.mean, start.std),
        ],
        "with mean and std 0.45,0.45,0.45 and 0.225,0.225,0.225; leave --set preprocess.mean": [
            ("tcnn_xs_local", 1.0, (0.5, 0.5, 0.5), start.std),
            ("tcnn_xs_local", 1.0, start.mean, (0.5, 0.5, 0.5)),
        ],
    }
    expect_fit(start, *own)
    for message, each in others.items():
        for other in each:
            assert fitting_start(*other) is None
            with pytest.raises(UserError, match=message):
                expect_fit(start, *other)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package's folder of weights that a test may spoil."""
    (tmp_path / "cards.json").write_bytes((FOLDER / "cards.json").read_bytes())
    monkeypatch.setattr(starts, "FOLDER", tmp_path)
    starts.starts.cache_clear()
    yield tmp_path
    starts.starts.cache_clear()


@pytest.mark.parametrize("content", [None, b"", b"cut"])
def test_a_missing_or_damaged_file_is_one_sentence(folder: Path, content: bytes | None) -> None:
    start = start_of("tcnn_xs_local-0.5")
    assert start is not None
    if content is not None:
        start.file.write_bytes(content)
    network = BACKBONES[start.network](3, width=start.width)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for work in (start.expect_whole, lambda: start.load(network)):
        with pytest.raises(UserError, match=r"install peakzoom again, or .* --init none") as caught:
            work()
        assert "\n" not in str(caught.value) and str(start.file) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("content", [None, "{", json.dumps({"a": {}}), "[]"])
def test_missing_or_damaged_cards_are_one_sentence(folder: Path, content: str | None) -> None:
    (folder / "cards.json").unlink()
    if content is not None:
        (folder / "cards.json").write_text(content)
    with pytest.raises(
        UserError, match=r"cards\.json is missing or damaged: install peakzoom again, or .* --init none"
    ):
        starts.starts()


def test_the_wheel_takes_the_weights_along() -> None:
    """Hatchling packs all files of a package that git does not ignore."""
    root = Path(__file__).resolve().parents[2]
    if sys.version_info < (3, 11) or not (root / ".gitignore").exists():
        pytest.skip("needs tomllib and a checkout")
    import tomllib

    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/peakzoom"]} and FOLDER.is_relative_to(root / "src" / "peakzoom")
    patterns = [line for line in (root / ".gitignore").read_text().splitlines() if line and line[0] != "#"]
    for file in FOLDER.iterdir():
        inner = PurePosixPath(file.relative_to(root).as_posix())
        assert not any(inner.match(pattern.strip("/")) for pattern in patterns), file
        assert not {part.strip("/") for part in patterns} & set(inner.parts), file
