"""Evidence that tests record, without a watch that finds anything."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="needs matplotlib and Pillow: pip install '.[train]'")

from peakzoom.apps.watch.evidence import recorder
from peakzoom.apps.watch.evidence.folder import Session
from peakzoom.apps.watch.evidence.identity import SourceFacts, WeightsFacts
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.recorder import Recorder
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended, ScoredWindow
from peakzoom.apps.watch.source import open_here
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.video.views import Preprocess

HOSTILE = ["<script>alert(1)</script>", "../../up", "a\nb\x1b[31m\u202e", "x" * 300, "\"&'`", " ", "打-слово"]


def small(classes: list[str]) -> Recognizer:
    """An untrained network for clips of 8 frames of 32 x 32 pixels."""
    torch.manual_seed(0)
    pre = Preprocess(size=32, frames=8, canvas=(32, 32))
    model = PeakZoom("tcnn_xs", len(classes), width=0.25, preprocess=pre.to_dict(), classes=classes)
    return Recognizer.of(model.eval(), "cpu")


def window(classes: list[str], start: float, name: str | None) -> ScoredWindow:
    """A window of one second that a model gives 0.9 for one class, or 0.5 where it names none."""
    scores = np.full(len(classes), 0.1 / max(len(classes) - 1, 1))
    scores[0 if name is None else classes.index(name)] = 0.5 if name is None else 0.9
    return ScoredWindow(start, start + 1.0, classes, scores, name, 10, None)


def recorded(
    place: Path,
    path: Path,
    classes: list[str],
    names: list[str | None],
    kept: bool = False,
    recognizer: Recognizer | None = None,
    **options: Any,
) -> Session:
    """What a recorder does when a watch reports a window a second, of these classes.

    ``kept`` treats the file as something that cannot be read again.
    """
    recognizer = recognizer or small(classes)
    given = EvidenceOptions(place, **{"clip_before": 0.5, "clip_after": 0.5, **options})
    with pytest.MonkeyPatch.context() as patch:
        if kept:
            patch.setattr(recorder, "is_file", lambda source: False)
            patch.setattr(recorder, "open_source", open_here)
        with Recorder("no folder", recognizer, WatchOptions(), given) as each:
            source = each.open(path, recognizer.preprocess.test_size)
            items = iter(source.items)
            for number, name in enumerate(names):
                shown = number + 1.0  # the reader is ahead by as much as a window
                for item in items:
                    if item.time >= shown:
                        break
                each.add(window(classes, float(number), name))
            for _ in items:
                pass
            each.add(Ended(12.0, 1.0, len(names), 0, 1, False))
            session = each.session
        source.close()
    return session


def events_in(place: Path) -> list[dict[str, Any]]:
    """The event.json of each event, in order; and that nothing else lies there but what has to."""
    found = sorted(each for each in place.iterdir() if each.is_dir())
    known = {"index.html", "evidence.json", "sessions.json", "SHA256SUMS", *(each.name for each in found)}
    assert {each.name for each in place.iterdir()} == known
    return [json.loads((each / "event.json").read_text()) for each in found]


def check(place: Path) -> None:
    """The checksums by coreutils, that every file has one, and the chain."""
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {line.split("  ", 1)[1] for line in (place / "SHA256SUMS").read_text().splitlines()}
    inside = {f"{each.parent.name}/{each.name}" for each in place.glob("*/*")}
    assert listed == {"evidence.json", *inside}
    before = None
    for folder in sorted(each for each in place.iterdir() if each.is_dir()):
        facts = json.loads((folder / "event.json").read_text())
        assert facts["previous"] == before
        before = hashlib.sha256((folder / "event.json").read_bytes()).hexdigest()
        for name, digest in facts["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


CLASSES = ["wave", "kick"]
NAMES: list[str | None] = [None, "wave", "wave", None, None, "kick", None, None, "wave", "wave"]


SOURCE, WEIGHTS = SourceFacts("a.mp4", "1" * 64, 5), WeightsFacts("2" * 64, "model.safetensors")


def filled(folder: Path) -> dict[str, Any]:
    """The least that an event's files say."""
    (folder / "note.txt").write_text("seen")
    clip = {"file": None, "start": 0.0, "end": 0.0, "plays_from": 0.0}
    return {"absolute": None, "clip": clip, "sizes": {}, "notes": ["no clip"]}
