"""Public weights by name, against a server on this machine with files of the real names and shapes."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from published import r3d_table
from safetensors.torch import save_file
from stand_ins import TABLES, Server, has_torchvision, stand_in

from peakzoom.cli.options import MachineOptions, RecipeOptions
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.data.entries import VideoSet
from peakzoom.inference.cost import multiply_adds
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.backbones import TORCHVISION
from peakzoom.model.public import find_public, public_weights, weights_file
from peakzoom.model.weights import load_weights
from peakzoom.training.recipe_text import recipe_to_toml
from peakzoom.training.recipes import Recipe, finetune, paper, small
from peakzoom.training.start import build, expect_meaning, fitted
from peakzoom.utils.download import cached_file, fetch
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess

CLASSES = {"kinetics400": 400, "ssv2": 174, "imagenet": 0}
LARGE = ("mae_b", "timesformer", "vivit", "vjepa2_l")
HUGE = "mae_l"  # of 1.2 GB, whose layers are those of mae_b, wider and more of them


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    """By how large an entry's file is."""
    if name.endswith(HUGE):
        return [pytest.mark.slow, pytest.mark.rare]
    return [pytest.mark.slow] if name.endswith(LARGE) else []


# The table -----------------------------------------------------------------------------------------------------------


def test_every_line_can_be() -> None:
    assert set(public_weights()) == set(TABLES)
    for name, entry in public_weights().items():
        assert entry.network in BACKBONES and name.partition("/")[2].startswith(entry.network)
        assert entry.address.startswith("https://") and entry.digits in entry.address.rpartition("/")[2]
        settings = dict(entry.preprocess)
        stride = settings.pop("stride")
        pre = Preprocess.from_dict(settings)
        assert (
            stride >= 0
            and (pre.short_side or pre.size) >= pre.size
            and entry.licence
            and 50 < entry.accuracy < 90
        )
        assert len(set(entry.classes)) == len(entry.classes) == CLASSES[name.partition("/")[0]]
        assert fitted(finetune(), entry).stride == (stride or None)
    assert public_weights()["kinetics400/r3d_18"].classes[:2] == ("abseiling", "air drumming")


@pytest.mark.slow
def test_the_page_says_what_a_view_of_each_start_costs() -> None:
    """Of the clips that the weights are for, which may be longer than those that the network was published with."""
    pytest.importorskip("transformers")
    page = Path(__file__).parents[3] / "docs" / "networks.md"
    found = re.findall(r"^\| (`--weights \w+/.*)\|$", page.read_text("utf-8"), re.M)
    rows = [row.split("|") for row in found]
    compared = 0
    for starts, costs, sizes, *_ in rows:
        names, said = re.findall(r"\w+/\w+", starts), [float(each) for each in costs.split(",")]
        for number, name in enumerate(names):
            entry = public_weights()[name]
            assert int(sizes.split(",")[min(number, sizes.count(","))]) == entry.preprocess["size"]
            if entry.network in TORCHVISION and not has_torchvision():
                continue
            with torch.device("meta"):
                network = BACKBONES[entry.network](400, **entry.options)
            cost = multiply_adds(network, entry.preprocess["frames"], entry.preprocess["size"])
            assert cost == pytest.approx(said[min(number, len(said) - 1)], rel=0.01), name
            compared += 1
    assert compared >= 7


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=marks_of(name)) for name in TABLES],
)
def test_every_file_loads_whole(table: Server, name: str) -> None:
    """Each tensor of the network has the value that one tensor of the file has, and no two have the same."""
    entry = public_weights()[name]
    if entry.network in TORCHVISION and not has_torchvision():
        pytest.skip("torchvision does not import here")
    if entry.classes:
        network = entry.model().backbone
    else:
        network = build(fitted(finetune(), entry), ["a", "b"], joint=False).backbone
        load_weights(network, entry.file())
    own = {
        key: value
        for key, value in network.state_dict().items()
        if value.is_floating_point() and not key.startswith("fc.")
    }
    new = {key for key in own if key.split(".")[0] in getattr(network, "new_parts", ())}
    values = [float(value.flatten()[0]) for key, value in own.items() if key not in new]
    assert all(value.unique().numel() == 1 for key, value in own.items() if key not in new)
    assert len(set(values)) == len(values)
    assert table.asked.total() == 1


# Through the command line --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_predicts_without_training(
    table: Server, call: Callable[..., tuple[int, str]], clip_data: VideoSet, tmp_path: Path
) -> None:
    clip = clip_data.entries[0].path
    views = ["--num-clips", 1, "--crops", 1, "--device", "cpu", "--jsonl", tmp_path / "out.jsonl"]
    code, said = call("predict", "kinetics400/r2plus1d_18", clip, *views)
    assert code == 0, said
    assert said.count("licence BSD-3-Clause (torchvision)") == 1
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert (
        line["class"] in public_weights()["kinetics400/r2plus1d_18"].classes
        and len(line["scores"]["fused"]) == 400
    )
    code, said = call("predict", "imagenet/tsm", clip)
    assert code == 2 and "knows no actions: train from it" in said
    code, said = call("predict", "kinetics400/r2plus1_18", clip)
    assert code == 2 and "did you mean kinetics400/r2plus1d_18?" in said
    code, said = call("weights")
    assert code == 0 and all(name in said for name in TABLES) and said.count(" yes ") == 1


def test_what_makes_weights_meaningless_is_refused(
    table: Server, call: Callable[..., tuple[int, str]], clips: Path, tmp_path: Path
) -> None:
    twice = ["--weights", "kinetics400/r3d_18", "--init", "kinetics400/r3d_18"]
    for words, said_of in (
        (["--model", "r2plus1d_18"], "kinetics400/r3d_18 means nothing with model r2plus1d_18"),
        (["--set", "preprocess.mean=0.5,0.5,0.5"], "means nothing with preprocess.mean 0.5,0.5,0.5"),
        (["--set", "width=0.5"], "means nothing with width 0.5"),
        (["--init", "none"], "exclude one another"),
        (twice, "exclude one another"),
        (["--weights", "kinetics400/videomae_s", "--size", 64], "means nothing with preprocess.size 64"),
    ):
        start = ["train", clips / "clips.csv", "--weights", "kinetics400/r3d_18", "--out", tmp_path / "run"]
        code, said = call(*start, *words)
        assert code == 2 and said_of in said and not (tmp_path / "run").exists(), said
    expect_meaning(fitted(paper(), public_weights()["kinetics400/i3d"]), public_weights()["kinetics400/i3d"])
    same = fitted(paper(), public_weights()["kinetics400/r3d_18"])
    expect_meaning(replace(same, model="res3d"), public_weights()["kinetics400/r3d_18"])  # the same network
    code, said = call("train", clips / "clips.csv", "--init", "imagenet/tsn", "--out", tmp_path / "run")
    assert code == 2 and "are public weights: give them with --weights" in said


def test_what_a_user_gives_goes_before_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(weights: str, **given: Any) -> tuple[Recipe, str]:
        recipe, _ = recipe_and_options(RecipeOptions(**given), MachineOptions(), weights=weights)
        return recipe, capsys.readouterr().err

    recipe, said = made("kinetics400/tsm", size=112)  # crops cover as much of a frame as with 224
    assert (recipe.preprocess.size, recipe.preprocess.short_side) == (112, 128)
    assert "preprocess.short_side 256; 128 was given" in " ".join(said.split())
    assert made("kinetics400/tsm", size=288)[0].preprocess.short_side == 329
    assert (
        made("kinetics400/tsm", size=112, settings=["preprocess.short_side=200"])[0].preprocess.short_side
        == 200
    )
    recipe, said = made("kinetics400/tsm", settings=["max_stride=16"])
    assert recipe.max_stride == 16 and "goes with max_stride 32; 16 was given and is taken" in said
    for changes in ("light", "strong"):  # classes of left and right stay so
        assert not made("ssv2/videomae_b", augment=changes)[0].augment.flip
        assert made("kinetics400/videomae_b", augment=changes)[0].augment.flip
    recipe, said = made("ssv2/videomae_b", augment="light", settings=["augment.flip=true"])
    assert recipe.augment.flip and "goes with augment.flip False; True was given" in said
    assert made("kinetics400/r3d_18", augment="none") == (made("kinetics400/r3d_18", augment="none")[0], "")
    file = tmp_path / "kitchen.toml"
    file.write_text(recipe_to_toml(replace(small(), batch_size=3)))
    recipe, said = made("kinetics400/r3d_18", recipe=str(file))
    assert (recipe.model, recipe.batch_size, recipe.preprocess.size) == ("r3d_18", 3, 112)
    said = " ".join(said.split())
    assert "kinetics400/r3d_18 brings its own model, preprocess.size, " in said and " stride, " in said
    assert "in place of those in" in said


# Downloads -----------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    data = bytes(range(256)) * 300
    server.files["/a/net.pth"] = data
    server.breaks_after = 50_000
    address, digits = f"{server.at}/a/net.pth", hashlib.sha256(data).hexdigest()[:8]
    file = fetch(address, digits)
    assert file.read_bytes() == data and file == cached_file(address)
    assert server.ranges == [None, "bytes=50000-"]
    assert fetch(address, digits) == file and server.asked.total() == 2
    assert sorted(each.name for each in file.parent.iterdir()) == ["net.pth", "net.pth.lock"]


@pytest.mark.parametrize("there", [0.3, 1.0])
def test_a_draft_of_a_killed_process(server: Server, there: float) -> None:
    data = bytes(range(256)) * 300
    server.files["/net.pth"] = data
    file = cached_file(f"{server.at}/net.pth")
    file.parent.mkdir(parents=True)
    file.with_name("net.part.pth").write_bytes(data[: round(there * len(data))])
    assert fetch(f"{server.at}/net.pth").read_bytes() == data
    assert server.ranges[0] == f"bytes={round(there * len(data))}-"


def test_another_file_is_not_kept(server: Server) -> None:
    server.files["/net.pth"] = b"an error page"
    address = f"{server.at}/net.pth"
    with pytest.raises(UserError, match=r"gave was not kept: .*SHA-256 begins with .*, expected 00000000"):
        fetch(address, "00000000")
    assert [each.name for each in cached_file(address).parent.iterdir()] == ["net.pth.lock"]
    cached_file(address).write_bytes(b"put there by hand")
    with pytest.raises(UserError, match="remove it, so that it is fetched"):
        fetch(address, "00000000")
    assert cached_file(address).exists()  # what a user has put there is not removed


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("{at}/gone.pth", "404"),
        ("http://127.0.0.1:9/net.pth", "could not be had"),
        ("https://", "is no address of a file"),
        ("http://../x", "is no address of a file"),
        ("{at}/", "is no address of a file"),
        ("{at}/a\nb", "is no address of a file"),
    ],
)
def test_what_cannot_be_had(server: Server, address: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        fetch(address.replace("{at}", server.at))
    assert "\n" not in str(error.value)


def test_addresses_stay_within_the_cache(server: Server, tmp_path: Path) -> None:
    for address in (
        "http://host/../../x",
        "http://host/a/%2e%2e/%2e%2e/b",
        "http://host/%2Fetc/x",
    ):
        assert (tmp_path / "cache" / "peakzoom" / "weights") in cached_file(address).resolve().parents


def test_offline_says_where_the_file_goes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    entry = public_weights()["kinetics400/r3d_18"]
    with pytest.raises(UserError, match="or put the file at") as error:
        entry.file()
    assert entry.address in str(error.value) and str(cached_file(entry.address)) in str(error.value)


def test_two_at_once_fetch_it_once(server: Server) -> None:
    server.files["/net.pth"] = bytes(3_000_000)
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(fetch, [f"{server.at}/net.pth"] * 4))
    assert len(set(files)) == 1 and server.asked["/net.pth"] == 1


def test_a_name_an_address_or_a_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "w")
    server.files["/net.pth"] = (tmp_path / "w").read_bytes()
    assert weights_file(f"{server.at}/net.pth").read_bytes() == server.files["/net.pth"]
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("own.pth", "own.pth is no file; expected weights, or a name that peakzoom weights lists"),
        ("r2plus1d_18", "did you mean kinetics400/r2plus1d_18?"),
        ("kinetic400/r3d_18", "did you mean kinetics400/r3d_18?"),
    ):
        with pytest.raises(UserError) as error:
            weights_file(name)
        assert said in str(error.value)
    Path("own.pth").touch()
    assert weights_file("own.pth") == Path("own.pth") and find_public("own.pth") is None
    with pytest.raises(UserError, match=r"did you mean own\.pth\?"):
        weights_file("owm.pth")
    (tmp_path / "kinetics400" / "r3d_18").mkdir(parents=True)  # what is here goes first
    assert find_public("kinetics400/r3d_18") is None
    with pytest.raises(UserError, match="no public weights are called kinetics400/r3d"):
        find_public("kinetics400/r3d")


def test_cut_and_foreign_files_are_one_sentence(table: Server) -> None:
    entry = public_weights()["kinetics400/tsm"]  # whose publisher states no digits
    path = "/" + entry.address.partition("://")[2].partition("/")[2]
    whole = table.files[path]
    for data in (whole[: len(whole) // 2], stand_in(r3d_table()), b"<html>"):
        table.files[path] = data
        with pytest.raises(UserError, match="gave was not kept: ") as error:
            entry.model()
        assert "\n" not in str(error.value) and "tsm" in str(error.value).lower()
        assert [each.suffix for each in cached_file(entry.address).parent.iterdir()] == [".lock"]
    table.files[path] = whole
    assert entry.model().backbone_name == "tsm"  # the publisher has mended it


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "get?file=net.safetensors"])
def test_a_page_that_says_sorry_is_no_file_of_weights(server: Server, tmp_path: Path, name: str) -> None:
    """It comes with status 200, and is asked for again the next time."""
    address = f"{server.at}/{name}"
    server.files[f"/{name}"] = b"<html>log in first</html>"
    with pytest.raises(UserError, match=r"gave was not kept: .* cannot be read as weights") as error:
        weights_file(address)
    assert address in str(error.value) and not cached_file(address).exists()
    state = {"fc.weight": torch.ones(2, 2)}
    save_file(state, tmp_path / "w") if name.endswith(".safetensors") else torch.save(state, tmp_path / "w")
    server.files[f"/{name}"] = (tmp_path / "w").read_bytes()
    assert weights_file(address).read_bytes() == server.files[f"/{name}"] and server.asked.total() == 2


def test_queries_of_one_path_are_different_files(server: Server) -> None:
    for query in ("", "?id=1", "?id=2"):
        server.files[f"/net.pth{query}"] = query.encode() or b"none"
    files = [fetch(f"{server.at}/net.pth{query}") for query in ("", "?id=1", "?id=2")]
    assert [file.read_bytes() for file in files] == [b"none", b"?id=1", b"?id=2"]
    assert {file.name for file in files} == {"net.pth"}


def test_a_full_disk_is_no_missing_network(server: Server) -> None:
    server.files["/net.pth"] = bytes(1000)
    file = cached_file(f"{server.at}/net.pth")
    file.parent.mkdir(parents=True)
    file.with_name("net.part.pth").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        fetch(f"{server.at}/net.pth")
    assert error.value.filename == str(file.with_name("net.part.pth")) and not file.exists()


def test_a_missing_extra_is_said_before_a_download(table: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in [each for each in sys.modules if each.startswith("transformers.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match="transformers, which is not installed"):
        public_weights()["kinetics400/vivit"].file()
    assert not table.asked


def test_a_start_from_the_hub_is_asked_for_there(monkeypatch: pytest.MonkeyPatch, tiny: object) -> None:
    from peakzoom.training import start

    asked: list[str] = []
    model = PeakZoom("tcnn_xs", 3, width=0.125, branches=("original",))

    def read(name: str) -> PeakZoom:
        asked.append(name)
        return model

    monkeypatch.setattr(start, "read_from_hub", read)
    other = PeakZoom("tcnn_xs", 3, width=0.125, branches=("original",))
    start.start_from(other, "somebody/kitchen")
    assert asked == ["somebody/kitchen"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
