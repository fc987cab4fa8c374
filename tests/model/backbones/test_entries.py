"""Every entry of ``peakzoom weights`` through the command line: trained with three branches, predicted, explained.

Convolutional networks have their real files, of clips of 32 pixels. Transformers, whose real files are too large for a
test, are their families with two heads and two blocks, of 4 frames of 32 pixels, and their files what the publisher's
library saves of that size; the real names and shapes are compared in test_public.py, and ``benchmarks/entries.py``
walks the same way with the real ones.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import TABLES, Server, has_torchvision
from torch import nn

from peakzoom.inference.recognizer import load
from peakzoom.model import BACKBONES, public
from peakzoom.model.backbones import FIXED_SIZE, TORCHVISION, TRANSFORMERS
from peakzoom.model.load import find_model, read_model
from peakzoom.model.public import PublicWeights, public_weights
from peakzoom.video.sampling import Views

pytestmark = pytest.mark.slow
FRAMES, SIZE = 4, 32
# One of every network and layout of a file; what their siblings do besides, the fast tests of test_public.py compare.
OFTEN = {
    *("kinetics400/r3d_18", "kinetics400/tsm-openmmlab", "kinetics400/i3d", "kinetics400/s3d"),
    *("kinetics400/slowfast_r50", "imagenet/trn", "kinetics400/videomae_s", "kinetics400/timesformer"),
    *("kinetics400/vivit", "ssv2/vjepa2_l", "kinetics400/swin3d_t"),
}
ONE = ("--num-clips", 1, "--crops", 1, "--device", "cpu")
WORDS = (
    *("--set", "branches=original,discriminative,complementary", "--set", "max_stride=32"),
    *("--set", "accelerator=cpu", "--workers", 0, "--val-fraction", 0),
    *("--epochs", 1, "--joint-epochs", 1, "--batch-size", 9),
)
SMALLER = ("--size", SIZE, "--set", f"preprocess.frames={FRAMES}", "--set", "preprocess.short_side=none")
WIDE = {"max_stride=32": "max_stride=8"}  # of networks whose strides can be left out


def library(network: str, classes: int) -> nn.Module:
    """transformers' own classifier of that family, as small as the one below."""
    transformers = pytest.importorskip("transformers")
    shape: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 128,
        "num_labels": classes,
    }
    if network == "vjepa2_l":
        short = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        config = transformers.VJEPA2Config(crop_size=SIZE, frames_per_clip=FRAMES, **shape, **short)
        return transformers.VJEPA2ForVideoClassification(config)
    shape |= {"image_size": SIZE, "num_frames": FRAMES, "intermediate_size": 512}
    family = {"timesformer": "Timesformer", "vivit": "Vivit"}.get(network, "VideoMAE")
    config = getattr(transformers, f"{family}Config")(**shape)
    return getattr(transformers, f"{family}ForVideoClassification")(config)


def smaller(network: str) -> Callable[..., nn.Module]:
    """What makes a network of two heads and two blocks in place of one by name."""
    make, heads = BACKBONES[network], {"videomae_s": 6, "vjepa2_l": 16, "videomae_l": 16}.get(network, 12)

    def made(classes: int, **options: Any) -> nn.Module:
        options["width"] = 2 / heads
        if not network.startswith("videomae"):
            return make(classes, **options, layers=2)
        found: Any = make(classes, **options)
        del found.body.encoder.layer[2:]
        return found

    return made


def shrink(name: str, table: Server, monkeypatch: pytest.MonkeyPatch) -> PublicWeights:
    """Serve a transformer's entry as one of its family that a test can train."""
    entry = public_weights()[name]
    stream = io.BytesIO()
    torch.manual_seed(0)
    torch.save(library(entry.network, len(entry.classes)).state_dict(), stream)
    table.files["/" + entry.address.split("/", 3)[3]] = stream.getvalue()
    monkeypatch.setitem(BACKBONES, entry.network, smaller(entry.network))
    file = public.FOLDER / "public.toml"
    before, header, after = file.read_text("utf-8").partition(f'["{name}"]')
    own = re.sub(r"size = \d+, frames = \d+", f"size = {SIZE}, frames = {FRAMES}", after, count=1)
    own = re.sub(r"short_side = \d+", f"short_side = {SIZE}", own, count=1)
    file.write_text(before + header + own, "utf-8")
    public_weights.cache_clear()
    return public_weights()[name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.rare) for name in TABLES]
)
def test_trains_predicts_explains(
    table: Server,
    call: Callable[..., tuple[int, str]],
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A few steps of three branches; the run is saved, loaded, and its card names the licence."""
    entry, out = public_weights()[name], tmp_path / "run"
    if entry.network in TORCHVISION and not has_torchvision():
        pytest.skip("torchvision does not import here")
    if entry.network == "mvit_v2_s":
        pytest.skip("its file is for 16 frames of 224 pixels alone, at which a test cannot train it")
    if entry.network in TRANSFORMERS:
        entry, words = shrink(name, table, monkeypatch), WORDS
    else:
        wide = {} if entry.network in TORCHVISION else WIDE
        words = (*(wide.get(word, word) for word in WORDS), *SMALLER)
    code, said = call("train", clips / "clips.csv", "--weights", name, "--out", out, *words)
    assert code == 0, said
    assert f"starts from {name}, trained on {entry.data}; licence {entry.licence}" in said
    size = f"{name} goes with preprocess.size {entry.preprocess['size']}; 32 was given and is taken"
    assert (size in said) == (entry.network not in FIXED_SIZE)
    assert ("stochastic_depth 0.1 plays no part" in said) == (entry.network not in TRANSFORMERS | TORCHVISION)

    model = read_model(find_model(out))
    assert model.backbone_name == entry.network and len(model.branches) == 3
    assert model.preprocess["mean"] == list(entry.preprocess["mean"])
    card = (out / "joint" / "best" / "README.md").read_text("utf-8")
    assert entry.licence in card and entry.address in card
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["weights"] == name and config["recipe"]["name"] == "finetune"

    clip = next(clips.rglob("test_*.mp4"))
    code, said = call("predict", out, clip, *ONE, "--jsonl", tmp_path / "said.jsonl")
    assert code == 0, said
    line = json.loads((tmp_path / "said.jsonl").read_text())
    model.save_pretrained(tmp_path / "again")
    for run in (out, tmp_path / "again"):
        again = load(run, "cpu").predict(clip, Views(clips=1, crops=1))
        for branch, scores in again.scores.items():
            assert [line["scores"][branch][each] for each in again.classes] == pytest.approx(
                scores.tolist(), abs=1e-6
            )
    code, said = call("explain", out, clip, "--out", tmp_path / "seen", *ONE)
    assert code == 0 and list((tmp_path / "seen").iterdir()), said
    for folder in (out, tmp_path / "again", tmp_path / "cache"):
        shutil.rmtree(folder)  # up to a gigabyte, which pytest would keep
