"""Evidence of a watch that was killed and gone on with: each event's is there once, and whole."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recording import check, events_in, small

from peakzoom import load
from peakzoom.apps.watch.evidence.folder import Session
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.recorder import Recorder
from peakzoom.apps.watch.folder import LINES, WatchFolder, watch_settings
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import read_past
from peakzoom.apps.watch.source import Source
from peakzoom.apps.watch.watch import watch
from peakzoom.video.decode import decode

Command = Callable[..., tuple[int, str, str]]
PLAIN = ("--threshold", 0, "--every", 0.4, "--clip-before", 0.5, "--clip-after", 0.5)
KEYS = ("start", "end", "class", "score", "peak", "windows")


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose predictions change from window to window."""
    model = small(["wave", "kick", "nod"]).model
    with torch.no_grad():
        model.backbone.fc.weight *= 200
        model.fc_fused.weight *= 200
    folder = tmp_path_factory.mktemp("changing") / "model"
    model.save_pretrained(folder)
    return folder


def as_killed(whole: Path, killed: Path, share: float, kept: int) -> None:
    """What a process leaves that is killed after a share of its lines, with evidence of the first ``kept`` events.

    Evidence is written by a thread of its own, so it may be behind the lines, or ahead of what is left of them after a
    power cut. The next event's folder is half written; its checksums are not there, or half a line of them.
    """
    shutil.copytree(whole, killed)
    lines, place = killed / "out" / LINES, killed / "evidence"
    data = lines.read_bytes()
    lines.write_bytes(data[: round(share * len(data))])
    folders = sorted(each for each in place.iterdir() if each.is_dir())
    for folder in folders[kept + 1 :]:
        shutil.rmtree(folder)
    sums = (place / "SHA256SUMS").read_text().splitlines(keepends=True)
    names = {each.name for each in folders[kept:]}
    left = [line for line in sums if line.split("  ", 1)[1].partition("/")[0] not in names]
    if kept < len(folders):
        half = folders[kept].rename(place / f".{folders[kept].name}.part")
        (half / "event.json").unlink()
        clip = half / "clip.mp4"
        clip.write_bytes(clip.read_bytes()[:-100])
        left.append(sums[len(left)][:30])
    (place / "SHA256SUMS").write_text("".join(left))
    (place / "sessions.json").write_text('[{"began": "2024-01-01T00:00:00.000Z"}]')  # as at its beginning


@pytest.mark.usefixtures("drawn_quickly")
def test_each_event_has_its_evidence_once(
    by_command: Command, changing: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_clip(tmp_path / "long.mp4", frames=80, fps=10)

    def go(folder: Path) -> int:
        folders = ("--out", folder / "out", "--evidence", folder / "evidence")
        code, _, err = by_command(changing, path, *PLAIN, *folders, "--resume")
        assert code == 0, err
        lines = [json.loads(line) for line in (folder / "out" / LINES).read_text().splitlines()]
        events = [line for line in lines if line["type"] == "event"]
        with (folder / "out" / "events.csv").open(newline="") as stream:
            assert len(list(csv.DictReader(stream))) == len(events)
        place = folder / "evidence"
        check(place)
        found = events_in(place)
        told = [tuple(facts[key] for key in KEYS) for facts in found]
        assert told == [tuple(event[key] for key in KEYS) for event in events]
        assert [facts["number"] for facts in found] == list(range(1, len(events) + 1))
        for facts in found:
            (own,) = place.glob(f"{facts['number']:06d}_*")
            assert {"clip.mp4", "figure.png", "peaks.json", "thumbnail.jpg"} <= {
                each.name for each in own.iterdir()
            }
            assert decode(own / "clip.mp4").info.frames == facts["clip"]["frames"] > 0 and not facts["notes"]
        return len(events)

    events = go(tmp_path / "whole")
    assert events >= 3
    for share, kept in ((0.4, 0), (0.5, events), (0.999, 1)):
        killed = tmp_path / f"{share} {kept}"
        as_killed(tmp_path / "whole", killed, share, kept)
        folders = sorted(each for each in (killed / "evidence").iterdir() if each.name.startswith("0"))
        before = {file: file.read_bytes() for each in folders for file in each.iterdir()}
        assert len(folders) == kept and go(killed) == events
        assert all(file.read_bytes() == data for file, data in before.items())  # nothing is touched again
    assert go(killed) == events  # watched to its end: nothing comes twice
    last = max((killed / "evidence").glob("0*"))  # as where the disk was full, and the watch came to its end
    shutil.rmtree(last)
    sums = killed / "evidence" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.open() if last.name not in line))
    assert go(killed) == events
    shutil.rmtree(killed / "evidence")
    assert go(killed) == events


@pytest.mark.usefixtures("drawn_quickly")
def test_a_stop_before_a_file_is_read_up_to_an_event_again_leaves_it_to_the_next(
    changing: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path, place = make_clip(tmp_path / "long.mp4", frames=80, fps=10), tmp_path / "evidence"
    recognizer, options = load(changing), WatchOptions(threshold=0.0, every=0.4)
    folder, settings = tmp_path / "out", watch_settings(recognizer, str(path), options, 5)
    with WatchFolder(folder, settings, 5) as out:
        for record in watch(recognizer, path, options):
            out.add(record)
    past = read_past(folder / LINES)
    assert past is not None

    class Recording(Recorder):
        def begin(self, source: str | Path, opened: Source) -> Source:
            begun = super().begin(source, opened)
            if stopped_at_once:
                stop.set()
            return begun

    def again() -> Session:
        at_its_speed = replace(options, live=True)  # it may be; it was not
        with Recording(str(changing), recognizer, options, EvidenceOptions(place, 0.5, 0.5)) as recorder:
            recorder.go_on(past)
            assert not recorder.has_all()
            for record in watch(recognizer, path, at_its_speed, past=past, recording=recorder, stop=stop):
                recorder.add(record)
            return recorder.session

    stop, stopped_at_once = threading.Event(), True
    session = again()
    assert session.recorded == 0 and session.missing >= 3 and not events_in(place)
    stop, stopped_at_once = threading.Event(), False
    session = again()
    assert session.missing == 0 and session.recorded == len(events_in(place)) >= 3
    check(place)
    assert all(facts["clip"]["file"] == "clip.mp4" and not facts["notes"] for facts in events_in(place))
