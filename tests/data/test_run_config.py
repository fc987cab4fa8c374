"""``config.json`` of a run may be damaged, or come from anyone: one sentence, in whatever reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from peakzoom.data.runs import is_multi_label, read_config, run_videos
from peakzoom.hub.card import model_card
from peakzoom.utils.errors import UserError

WRONG = [None, True, 0, 3.5, "x", "", [], [1], [[]]]


@pytest.mark.parametrize("part", ["recipe", "options"])
@pytest.mark.parametrize("value", WRONG)
def test_parts_that_are_no_values_by_name(part: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {}, "options": {}, part: value}))
    for read in (read_config, is_multi_label):
        with pytest.raises(UserError, match=f"config.json is damaged: {part} holds no values by name$"):
            read(tmp_path)


def test_the_card_of_a_run_with_odd_settings(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    good = json.loads((own / "config.json").read_text())
    videos = len(run_videos(own).entries)
    for value in WRONG:
        good["recipe"]["augment"] = good["options"]["init"] = good["options"]["weights"] = value
        (own / "config.json").write_text(json.dumps(good))
        assert "peakzoom" in str(model_card(own))
        assert len(run_videos(own).entries) == videos
    (own / "config.json").write_text(json.dumps({**good, "recipe": [1]}))
    with pytest.raises(UserError, match="recipe holds no values by name"):
        model_card(own)
