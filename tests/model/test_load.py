"""A name is a folder here or a model of the hub, and a mistyped folder is never asked of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom
from peakzoom.model.load import find_model, is_on_hub
from peakzoom.utils.errors import UserError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in it, and no hub."""
    (tmp_path / "runs" / "quick").mkdir(parents=True)
    (tmp_path / ".runs" / "quick").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def asked(*arguments: object, **_: object) -> None:
        raise AssertionError(f"the hub was asked for {arguments}")

    monkeypatch.setattr("peakzoom.model.pretrained.hf_hub_download", asked)
    return tmp_path


@pytest.mark.parametrize(
    "name,said",
    [
        ("runs/quik", "did you mean runs/quick?"),
        ("rusn/quick", "did you mean runs/quick?"),
        ("run/quick", "did you mean runs/quick?"),
        ("Runs/Quick", "did you mean runs/quick?"),
        ("runs/something-else", "runs is here, so the hub was not asked"),
        ("./runs/quik", "did you mean runs/quick?"),
        ("runs/quick/joint/best", "runs/quick/joint/best does not exist"),
        ("../nothing/at-all", "does not exist"),
        ("ä/b", "does not exist"),
        ("a--b/c", "does not exist"),
        ("-a/b", "does not exist"),
        ("a/b.", "does not exist"),
        ("one-word", "does not exist"),
        ("runs", "holds no trained model"),
    ],
)
def test_what_is_no_name_on_the_hub_stays_here(here: Path, name: str, said: str) -> None:
    for read in (load, PeakZoom.from_pretrained):
        if read is not load and name == "runs":
            continue  # a folder without a model's files, which is no matter of names
        with pytest.raises(UserError) as caught:
            read(name)
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_training_that_was_stopped_is_gone_on_with(here: Path) -> None:
    checkpoint = here / "runs" / "quick" / "tcnn" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(
        UserError, match=r"the training in runs/quick has not come to the end .* with --resume"
    ):
        load("runs/quick")


@pytest.mark.parametrize("name", ["anna/kitchen-actions", "a_b/c.d", "nobody/quick"])
def test_what_can_only_be_on_the_hub(here: Path, name: str) -> None:
    assert is_on_hub(name)
    for read in (load, PeakZoom.from_pretrained):
        with pytest.raises(AssertionError, match="the hub was asked"):
            read(name)


def test_a_file_is_no_model(here: Path) -> None:
    (here / "runs" / "notes").write_text("")
    for name in ("runs/notes", str(here / "runs" / "notes")):
        with pytest.raises(UserError, match=r"notes is no folder: expected the folder of a saved model"):
            PeakZoom.from_pretrained(name)


def test_a_whole_path_is_compared_too(here: Path) -> None:
    with pytest.raises(UserError, match=rf"did you mean {here}/runs/quick\?"):
        find_model(here / "run" / "quik")
    PeakZoom("tcnn_xs", 2, width=0.125).save_pretrained(here / "runs" / "quick")
    assert find_model("runs/quick") == Path("runs/quick") and not is_on_hub("runs/quick")
