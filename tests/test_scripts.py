"""``scripts/start.py``: a run in pieces goes on where it was, and ends with what the package holds."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from peakzoom.model.starts import FOLDER, start_of

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "start.py"
NAME = "tcnn_xs_local-0.5"


@pytest.fixture
def main() -> Any:
    """The program with clips of 4 frames, 32 pixels wide."""
    program = runpy.run_path(str(SCRIPT), run_name="start")
    program["main"].__globals__.update(FRAMES=4, PAINTED=32, SIZE=32)
    return program["main"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--networks tcnn_xs-1", "--networks has tcnn_xs-1: expected some of tcnn_xs_local-0.5, "),
        ("--clips 10", "--clips is 10: expected at least a batch, 64"),
    ],
)
def test_what_would_train_nothing_is_refused(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), *words.split()])
    assert expected in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_start_weights_in_pieces(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{tmp_path} --networks {NAME} --clips 6 --again 2 --batch 2 --tests 2 --workers 0 --device cpu".split()
    for clips in (2, 4):
        main([*words, "--minutes", "0"])
        assert f"{clips} of 6 clips; the same command goes on" in capsys.readouterr().out
        assert not (tmp_path / "cards.json").exists()
    with pytest.raises(SystemExit, match=r"was begun with .*: name another folder"):
        main([*words, "--seed", "1"])
    main(words)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["clips"] for line in lines] == [2, 4, 6] and all(line[NAME][0] > 0 for line in lines)
    state = torch.load(tmp_path / f"{NAME}.pt")
    assert state["done"] == 6  # steps

    # The same names, shapes and types as those of the package, from the network of the last state.
    start = start_of(NAME)
    assert start is not None
    made, packed = load_file(tmp_path / f"{NAME}.safetensors"), load_file(start.file)
    assert {key: (value.shape, value.dtype) for key, value in made.items()} == {
        key: (value.shape, value.dtype) for key, value in packed.items()
    }
    assert all(torch.equal(value, state["net"][key].to(value.dtype)) for key, value in made.items())
    text = (tmp_path / "cards.json").read_text()
    (card,), cards = json.loads(text).values(), json.loads((FOLDER / "cards.json").read_text())
    assert list(card) == list(cards[NAME])
    assert card["sha256"] == hashlib.sha256((tmp_path / f"{NAME}.safetensors").read_bytes()).hexdigest()
    assert (card["clips"], card["shown"], card["tests"]) == (6, 2, 2)
    main(words)  # nothing is left to train, and the same is written
    assert (tmp_path / "cards.json").read_text() == text
    assert (FOLDER / "cards.json").read_text() == json.dumps(
        cards, indent=2
    ) + "\n"  # as the script writes it
