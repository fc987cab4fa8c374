"""``load_weights``: a public file into a network by names and shapes, said in sentences, or one sentence why not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.c3d import C3D
from peakzoom.model.backbones.p3d import P3D
from peakzoom.model.backbones.r2plus1d import R2Plus1D
from peakzoom.model.backbones.r3d import R3D
from peakzoom.model.backbones.trn import TRN
from peakzoom.model.backbones.tsn import TSN
from peakzoom.model.weights import load_weights
from peakzoom.utils.errors import UserError

NARROW = 1 / 64
State = dict[str, Tensor]


def narrow(make: Callable[..., VideoNetwork], classes: int) -> VideoNetwork:
    return make(classes, width=NARROW).eval()


def filled(network: nn.Module, seed: int) -> State:
    """Other values for all of a network's tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.tensor(seed)
        for name, value in network.state_dict().items()
    }


def same(network: nn.Module, state: State) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize("make", [C3D, R3D, R2Plus1D, P3D])
@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_everything_is_loaded(make: Callable[..., VideoNetwork], kind: str, tmp_path: Path) -> None:
    state, file = filled(narrow(make, 6), 1), tmp_path / f"weights{kind}"
    save_file(state, file) if kind == ".safetensors" else torch.save(state, file)
    network = narrow(make, 6)
    assert load_weights(network, file) == [f"{len(state):,} tensors of weights{kind} loaded"]
    assert same(network, state)
    assert load_weights(narrow(make, 6), str(file))


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": 0.5, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": ["--lr", "1"]},
    "both": lambda state: {"model": {"state_dict": state}},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "lightning": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    "both prefixes": lambda state: {f"module.model.{name}": value for name, value in state.items()},
    "half": lambda state: {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    },
    "old batch norms": lambda state: {
        name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_weights(wrapping: str, zipped: bool, tmp_path: Path) -> None:
    state, file = filled(narrow(R3D, 3), 2), tmp_path / "weights.pth.tar"
    torch.save(WRAPPED[wrapping](state), file, _use_new_zipfile_serialization=zipped)
    network = narrow(R3D, 3)
    counters = {name: value for name, value in network.state_dict().items() if value.dim() == 0}
    said = load_weights(network, file)
    if wrapping == "half":
        state = {name: value.half().to(value.dtype) for name, value in state.items()}
    if wrapping == "old batch norms":
        state |= counters
        assert said == [f"{len(state) - len(counters):,} tensors of weights.pth.tar loaded"]
    else:
        assert said == [f"{len(state):,} tensors of weights.pth.tar loaded"]
    assert same(network, state)


def test_a_classifier_of_other_classes_stays_as_made(tmp_path: Path) -> None:
    state, file = filled(narrow(R3D, 400), 3), tmp_path / "r3d_18.pth"
    torch.save(state, file)
    network = narrow(R3D, 6)
    made = network.fc.weight.detach().clone()
    assert load_weights(network, file) == [
        f"{len(state) - 2:,} tensors of r3d_18.pth loaded",
        "the classifier of 400 classes was left out, this model has 6",
    ]
    assert torch.equal(network.fc.weight, made)
    assert torch.equal(network.get_parameter("stem.0.weight"), state["stem.0.weight"])


def test_a_file_without_a_classifier(tmp_path: Path) -> None:
    state, file = filled(narrow(P3D, 6), 4), tmp_path / "p3d.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("fc.")}, file)
    assert load_weights(narrow(P3D, 6), file) == [
        f"{len(state) - 2:,} tensors of p3d.safetensors loaded",
        "p3d.safetensors has no classifier: this model's is new",
    ]


def test_the_head_of_c3d_is_left_out(tmp_path: Path) -> None:
    """The public file: eight convolutions and three fully connected layers, weights and biases."""
    state = {name: value for name, value in filled(narrow(C3D, 6), 5).items() if not name.startswith("fc.")}
    head = {f"fc{i}.{kind}": torch.zeros(3) for i in (6, 7, 8) for kind in ("weight", "bias")}
    file = tmp_path / "c3d.pickle"
    torch.save({**state, **head}, file)
    network = narrow(C3D, 6)
    assert load_weights(network, file) == [
        "16 tensors of c3d.pickle loaded",
        "fc6, fc7, fc8 of c3d.pickle left out: this network has one classifier in their place",
    ]
    assert torch.equal(network.get_parameter("conv5b.bias"), state["conv5b.bias"])
    with pytest.raises(UserError, match="R3D has no conv1"):
        load_weights(narrow(R3D, 6), file)
    torch.save({"fc9.weight": torch.zeros(3), **state}, file)
    with pytest.raises(UserError, match=r"C3D has no fc9\.weight;"):
        load_weights(network, file)


@pytest.mark.parametrize("frames,classes", [(4, 6), (4, 1000), (5, 1000)])  # 5: even its classifier would fit
@pytest.mark.parametrize("names", ["torchvision", "TSN"])
def test_an_image_network_becomes_the_body_of_trn(
    frames: int, classes: int, names: str, tmp_path: Path
) -> None:
    """ResNet-50 by torchvision's names, or by those of a public TSN file, without any relation."""
    body, file = filled(narrow(TSN, 1000), 8), tmp_path / "resnet50.pth"
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias", "fc.weight"} < body.keys()
    public = body
    if names == "TSN":
        public = {
            f"module.new_{name}" if name.startswith("fc.") else f"module.base_model.{name}": value
            for name, value in body.items()
        }
    torch.save(public, file)
    network = TRN(classes, width=NARROW, frames=frames)
    made = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_weights(network, file) == [
        f"{len(body) - 2:,} tensors of resnet50.pth loaded",
        "resnet50.pth has nothing for reduce, relations: this model's are new",
        "the classifier was left out: it was made for other features",
    ]
    new = {name for name in made if name.split(".")[0] in ("reduce", "relations", "fc")}
    assert made.keys() == new | body.keys() and len(new) == 2 * (1 + frames - 1 + 1)
    assert same(network, {**body, **{name: made[name] for name in new}})


def test_a_part_that_is_only_half_there_is_refused(tmp_path: Path) -> None:
    network = TRN(6, width=NARROW, frames=4)
    state = filled(network, 9)
    torch.save(state, tmp_path / "trn.pth")
    assert load_weights(network, tmp_path / "trn.pth") == [f"{len(state):,} tensors of trn.pth loaded"]
    assert same(network, state)
    for left_out in ("reduce.", "relations.1.", "layer3.2."):
        less = {name: value for name, value in state.items() if not name.startswith(left_out)}
        torch.save(less, tmp_path / "less.pth")
        with pytest.raises(UserError, match=f"it lacks {left_out}.*which TRN has"):
            load_weights(network, tmp_path / "less.pth")


class Translated(nn.Module):
    """A network with a public layout of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Linear(2, 3)
        self.fc = nn.Linear(3, 4)

    def adapt_weights(self, state: State) -> State:
        return {name.replace("base.", "conv."): value for name, value in state.items()}


def test_a_network_translates_its_public_layout(tmp_path: Path) -> None:
    state = filled(Translated(), 6)
    file = tmp_path / "public.pt"
    torch.save({f"module.{name.replace('conv.', 'base.')}": value for name, value in state.items()}, file)
    network = Translated()
    assert load_weights(network, file) == ["4 tensors of public.pt loaded"]
    assert same(network, state)


def misfit(kind: str, state: State) -> State:
    if kind == "more":
        return {**state, **{f"extra.{i}": torch.zeros(1) for i in range(5)}}
    if kind == "less":
        return {name: value for name, value in state.items() if not name.startswith("layer4.1.conv2")}
    if kind == "half a classifier":
        return {name: value for name, value in state.items() if name != "fc.bias"}
    if kind == "other shape":
        return {**state, "stem.0.weight": torch.zeros(8, 3, 1, 7, 7)}
    assert kind == "other width"
    return filled(R3D(6, width=1 / 32), 0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("more", r"R3D has no extra\.0, extra\.1, extra\.2 and 2 more \(5 in all\); name the --model"),
        ("less", r"it lacks layer4\.1\.conv2\.0\.weight, .* and 2 more \(5 in all\), which R3D has"),
        ("half a classifier", r"it lacks fc\.bias, which R3D has"),
        ("other shape", r"stem\.0\.weight is \(8, 3, 1, 7, 7\) there and \(8, 3, 3, 7, 7\) here, and 1 of"),
        ("other width", r"of another size than this network: .* tensors differ so; use the published width"),
    ],
)
def test_what_does_not_fit_changes_nothing(kind: str, said: str, tmp_path: Path) -> None:
    network = narrow(R3D, 6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save(misfit(kind, filled(network, 7)), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=said) as caught:
        load_weights(network, tmp_path / "weights.pth")
    assert "weights.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert same(network, before)


class Code:
    ran = False

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return setattr, (Code, "ran", True)


def unreadable(kind: str, file: Path) -> None:
    if kind == "code":
        torch.save({"a": Code()}, file)
    elif kind == "a whole model":
        torch.save(nn.Linear(1, 1), file)
    elif kind == "a pickle":
        file.write_bytes(pickle.dumps({"a": Code()}, protocol=2))
    elif kind == "text":
        file.write_text("<html>404</html>")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut":
        torch.save({"a": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:500])
    elif kind == "a list":
        torch.save([torch.zeros(1)], file)
    elif kind == "no entries":
        torch.save({}, file)
    elif kind == "other things":
        torch.save({"epoch": 3, "lr": 0.1}, file)
    elif kind == "twice":
        torch.save({"a": torch.zeros(1), "module.a": torch.zeros(1)}, file)
    elif kind == "a folder":
        file.mkdir()
    else:
        assert kind == "missing"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("code", "would run code when read, so it was not; save its"),
        ("a whole model", "would run code when read, so it was not; save its"),
        ("a pickle", "get the file again|would run code"),
        ("text", "get the file again"),
        ("empty", "get the file again"),
        ("cut", "get the file again"),
        ("a list", "holds a list; expected tensors by name"),
        ("no entries", "holds a dict without entries; expected tensors by name"),
        ("other things", "holds epoch, lr beside tensors; expected tensors by name alone"),
        ("twice", "two tensors for a; expected the weights of one network"),
        ("a folder", "is no file; expected weights"),
        ("missing", "is no file; expected weights"),
    ],
)
def test_unreadable_files(kind: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "some.pth"
    unreadable(kind, file)
    with pytest.raises(UserError, match=said) as caught:
        load_weights(narrow(C3D, 2), file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not Code.ran


@pytest.mark.parametrize("content", [b"", b"12345678901", b"<html>404</html>"])
def test_unreadable_safetensors(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as weights .*; get the file again"):
        load_weights(narrow(C3D, 2), file)
