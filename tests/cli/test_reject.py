"""None of these: chosen by ``calibrate --reject``, and the same on every way to a prediction."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score
from test_calibrated import QUICK, call

from peakzoom.apps.serve.about import about
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.page import answers
from peakzoom.apps.serve.service import Service
from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import ScoredWindow
from peakzoom.apps.watch.watch import watch
from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import load
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

ONE = Views(clips=1, crops=1)


@pytest.fixture(scope="module")
def rejecting(
    run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """A model whose threshold lies in the middle of its confidences, its labelled videos, and what was said."""
    folder = tmp_path_factory.mktemp("rejecting")
    load(run, "cpu").model.save_pretrained(folder / "model")
    plain = load(folder / "model", "cpu")
    rows = ["path,label,split"]
    for number, entry in enumerate(clip_data.entries[:14]):
        best, second = plain.predict(entry.path, ONE).top(2)
        rows.append(f"{entry.path},{(best, second)[number % 2][0]},{'val' if number < 12 else 'test'}")
    listed = folder / "list.csv"
    listed.write_text("\n".join(rows) + "\n", encoding="utf-8")
    said = call("calibrate", folder / "model", listed, "--root", "/", *QUICK, "--reject", "--kept", 0.5)
    return folder / "model", listed, said


def test_what_is_said_of_the_choice(rejecting: tuple[Path, Path, str]) -> None:
    run, _, said = rejecting
    assert "6 right predictions against 6 wrong ones (none are given by --unknown: mistakes" in said
    kept = json.loads((run / "rejection" / "rejection.json").read_text())
    assert kept["measure"] in ("probability", "energy") and set(kept["calibration"]["aurocs"]) == {
        "probability",
        "energy",
    }
    assert kept["calibration"]["accuracy"] == 0.5 and kept["calibration"]["share_kept"] == 0.5
    assert kept["calibration"]["auroc"] == max(kept["calibration"]["aurocs"].values())


def test_every_way_says_the_same(
    rejecting: tuple[Path, Path, str], clip_data: VideoSet, tmp_path: Path
) -> None:
    run, _, _ = rejecting
    plain, recognizer = load(run, "cpu"), load(run, "cpu", reject=True)
    files = [entry.path for entry in clip_data.entries[:20]]
    wanted = {str(file): recognizer.predict(file) for file in files}
    names = {file: each.name for file, each in wanted.items()}
    assert None in names.values() and len(set(names.values())) > 1  # or the test says nothing

    lines = tmp_path / "lines.jsonl"
    text = call("predict", run, *files, *QUICK, "--reject", "--jsonl", lines, "--csv", tmp_path / "table.csv")
    assert text.count("none of these (") == list(names.values()).count(None)
    for line in map(json.loads, lines.read_text().splitlines()):
        assert line == json.loads(json.dumps(wanted[line["file"]].to_dict()))
    with (tmp_path / "table.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            assert row["class"] == (names[row["file"]] or "none of these")
            assert row["rejected"] == str(names[row["file"]] is None)
            assert float(row["confidence"]) == wanted[row["file"]].confidence.value  # type: ignore[union-attr]

    service = Service(recognizer, recognizer.choose_views(None), Limits(), tmp_path)
    assert "It says none of these where the" in about(service)
    assert "It names one of them" in about(Service(plain, ONE, Limits(), tmp_path))
    uploads = [shutil.copy(file, tmp_path / f"{place}.mp4") for place, file in enumerate(files)]
    table, _ = service.table(uploads)
    assert [row[1] for row in table] == [name or "none of these" for name in names.values()]
    rejected = list(names.values()).index(None)
    *_, (shown, seen) = answers(service, str(uploads[rejected]), "the prediction")
    assert "<strong>None of these:</strong>" in shown and "below" in shown and "<video" in seen

    out = tmp_path / "seen"
    said = call("explain", run, files[rejected], *QUICK, "--reject", "--device", "cpu", "--out", out)
    assert said.startswith("none of these (")
    assert json.loads((out / "evidence.json").read_text())["class"] is None


def test_an_archive_has_null_for_it(rejecting: tuple[Path, Path, str], clip_data: VideoSet) -> None:
    pa = pytest.importorskip("pyarrow")
    from peakzoom.apps.batch.listing import find_items
    from peakzoom.apps.batch.table import schema
    from peakzoom.apps.batch.worker import _row

    recognizer = load(rejecting[0], "cpu", reject=True)
    files = [str(entry.path) for entry in clip_data.entries[:6]]
    wanted = [recognizer.predict(file) for file in files]
    rows = [_row(item, recognizer.predict(item.path)) for item in find_items(files)]
    table = pa.Table.from_pylist(rows, schema(recognizer.settings(ONE))).to_pylist()
    assert {row["path"]: (row["class"], row["confidence"], row["rejected"]) for row in table} == {
        str(each.path): (each.name, each.confidence.value, each.confidence.rejected)  # type: ignore[union-attr]
        for each in wanted
    }
    plain = schema(load(rejecting[0], "cpu").settings(ONE)).names
    assert "confidence" not in plain and "rejected" not in plain


def test_windows_are_rejected_too(rejecting: tuple[Path, Path, str], clip_data: VideoSet) -> None:
    """A window has a class where the watch without rejection names one and its confidence is high enough."""
    run, _, _ = rejecting
    plain, recognizer = load(run, "cpu"), load(run, "cpu", reject=True)
    options, seen = WatchOptions(threshold=0.0), set()
    for entry in clip_data.entries:
        records = list(watch(recognizer, entry.path, options))
        for one, other in zip(
            [each for each in records if isinstance(each, ScoredWindow)],
            [each for each in watch(plain, entry.path, options) if isinstance(each, ScoredWindow)],
            strict=True,
        ):
            assert one.confidence is not None and other.confidence is None
            assert one.scores.tolist() == other.scores.tolist()
            assert one.name == (None if one.confidence.rejected else other.name)
            seen.add(one.name is None)
        assert any(isinstance(each, Event) for each in records) == any(
            isinstance(each, ScoredWindow) and each.name for each in records
        )
    assert seen == {True, False}
    with pytest.raises(
        UserError, match=r"rejection threshold was fitted for means of 1 x 1 views, and a window"
    ):
        watch(recognizer, clip_data.entries[0].path, WatchOptions(crops=3))


def test_evaluate_measures_it(rejecting: tuple[Path, Path, str], clip_data: VideoSet, tmp_path: Path) -> None:
    run, listed, _ = rejecting
    other = tmp_path / "other"
    other.mkdir()
    for entry in clip_data.entries[14:18]:
        shutil.copy(entry.path, other)
    (other / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "tested"
    arguments = (
        "evaluate",
        run,
        listed,
        "--root",
        "/",
        "--split",
        "val",
        *QUICK,
        "--device",
        "cpu",
        "--out",
        out,
    )
    said = call(*arguments, "--reject", "--unknown", other)
    assert "unknown videos rejected:" in said and "AUROC" in said
    found = json.loads((out / "rejection.json").read_text())
    with (out / "rejection.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 + 4 and found["unknown_videos"] == 4 and found["videos"] == 12
    right = [row["right"] == "True" for row in rows]
    assert found["auroc"] == pytest.approx(roc_auc_score(right, [float(row["confidence"]) for row in rows]))
    kept = [
        is_right
        for is_right, row in zip(right, rows, strict=True)
        if row["label"] and row["rejected"] == "False"
    ]
    assert found["accuracy_of_kept"] == pytest.approx(sum(kept) / len(kept)) and found["accuracy"] == 0.5
    assert "broken.mp4" in (out / "problems.csv").read_text()


def test_what_does_not_go_together(
    rejecting: tuple[Path, Path, str], clip_data: VideoSet, run: Path, tmp_path: Path
) -> None:
    model, listed, _ = rejecting
    for arguments, expected in (
        (("calibrate", model, "--reject", "--events"), "--events and --reject choose different things"),
        (("calibrate", model, "--unknown", tmp_path), "add --reject, or leave it out"),
        (("evaluate", model, listed, "--unknown", tmp_path), "add --reject, or leave it out"),
        (("calibrate", model, listed, "--reject"), "exists: remove it to calibrate again"),
        (("evaluate", model, listed, "--root", "/", "--reject"), "fitted for other views"),
        (("predict", model, listed, "--reject", "--cascade"), r"cascade\.json does not exist"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            call(*arguments)
        assert "\n" not in str(error.value)


def test_too_few_videos_change_nothing(run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    before = sorted(own.rglob("*"))
    with pytest.raises(UserError, match=r"expected at least 5 of either: .*nothing was chosen"):
        call("calibrate", own, "--reject", *QUICK)
    assert sorted(own.rglob("*")) == before
    with pytest.raises(UserError, match="is a video of the run, and 24 of"):
        call(
            "calibrate",
            own,
            "--reject",
            *QUICK,
            "--unknown",
            clip_data.entries[0].path.parents[1] / "clips.csv",
        )
    assert sorted(own.rglob("*")) == before
