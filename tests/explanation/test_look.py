"""What was seen: every frame once, its scores and its peaks, in the file's own pixels and seconds."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from explanation.colours import NAMES, middle_of, recognizer, write_squares

from peakzoom.data.entries import VideoSet
from peakzoom.explanation.draw import Painter
from peakzoom.explanation.evidence import Evidence
from peakzoom.explanation.look import _starts, explain
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import clip_span
from peakzoom.video.decode import decode
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import Preprocess, to_input

ONE = Views(clips=2, crops=1)


@pytest.mark.parametrize("span", [1, 2, 7, 16, 61])
def test_clips_cover_every_frame_and_overlap(span: int) -> None:
    for count in range(1, 200):
        starts = _starts(count, span).tolist()
        assert starts[0] == 0 and starts == sorted(set(starts))
        assert starts[-1] == max(count - span, 0)
        assert set(range(count)) <= {start + each for start in starts for each in range(span)}
        assert all(b - a <= -(-span // 2) for a, b in pairwise(starts))


def track(colour: str, evidence: Evidence) -> list[tuple[float, float]]:
    """Where the strongest peak of a class is in each frame of the file."""
    found: list[tuple[float, float]] = []
    for frame in range(evidence.info.frames):
        here = [each for each in evidence.peaks if each.first <= frame <= each.last]
        best = max((each for each in here if each.label == colour), key=lambda each: each.response)
        found.append((best.x, best.y))
    return found


def moving(number: int) -> list[tuple[str, float, float]]:
    return [("red", 0.3 + 0.03 * number, 0.65 - 0.02 * number)]


SHAPES: dict[str, tuple[tuple[int, int], Callable[..., object] | None]] = {
    "plain": ((60, 80), None),
    "tall": ((90, 50), None),
    "odd": ((61, 83), None),
    "turned": ((60, 80), lambda stream: stream.set_display_rotation(90)),
    "upside down": ((60, 80), lambda stream: stream.set_display_rotation(180)),
    "turned back": ((60, 80), lambda stream: stream.set_display_rotation(270)),
    "mirrored": ((60, 80), lambda stream: stream.set_display_rotation(0, hflip=True)),
    "wide pixels": (
        (60, 80),
        lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", Fraction(3, 2)),
    ),
}
CASES: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in SHAPES),
    # Decoding does the turning; a canvas and a larger source are about the shape alone.
    *(
        (name, {option: value})
        for option, value in (("test_canvas", True), ("zoom_source", 2))
        for name in ("tall", "turned", "wide pixels")
    ),
]


@pytest.mark.parametrize("name,options", CASES)
def test_peaks_lie_where_the_pixels_are(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    size, setup = SHAPES[name]
    extra = {"setup": setup} if setup else {}
    file = write_squares(tmp_path / "v.mov", moving, size=size, **extra)  # type: ignore[arg-type]
    shown = decode(file).frames.movedim(1, -1).numpy()  # what a player shows
    evidence = explain(recognizer(**options), file, views=ONE)  # type: ignore[arg-type]
    assert evidence.target == "red" and not evidence.target_given
    assert (evidence.info.height, evidence.info.width) == shown.shape[1:3]
    cell = 4 / 32 * max(evidence.region.height, evidence.region.width)
    for frame, (x, y) in enumerate(track("red", evidence)):
        true_x, true_y = middle_of("red", shown[frame])
        assert abs(x - true_x) <= cell and abs(y - true_y) <= cell, (name, frame, x, y, true_x, true_y)


@pytest.mark.parametrize("crop,position", [(0, 0.15), (2, 0.85)])
def test_the_crop_that_scores_highest_is_shown(tmp_path: Path, crop: int, position: float) -> None:
    file = write_squares(tmp_path / "v.mov", lambda number: [("green", position, 0.5)], size=(60, 160))
    views = Views(clips=1, crops=3)
    evidence = explain(recognizer(), file, views=views)
    assert evidence.crop == (crop, 3)
    assert evidence.peaks[0].x == pytest.approx(160 * position, abs=8)
    window = evidence.region
    assert (window.top, window.height) == (0, 60) and window.width == pytest.approx(60, abs=0.5)
    other = explain(recognizer(), file, views=views, crop=1)
    assert other.crop == (1, 3) and other.region.left == pytest.approx(50, abs=1.5)
    assert other.prediction.scores["fused"] == pytest.approx(evidence.prediction.scores["fused"])
    with pytest.raises(UserError, match="crop is 3, expected 0 to 2"):
        explain(recognizer(), file, views=views, crop=3)


@pytest.mark.parametrize("response", ["gate", "evidence"])
@pytest.mark.parametrize("attention_per", ["frame", "clip"])
def test_another_class_has_its_own_evidence(tmp_path: Path, response: str, attention_per: str) -> None:
    places = {"red": (0.25, 0.5), "green": (0.75, 0.4)}
    file = write_squares(tmp_path / "v.mov", lambda number: [(key, *at) for key, at in places.items()])
    model = recognizer(response=response, attention_per=attention_per)
    for name, (x, y) in places.items():
        evidence = explain(model, file, name, ONE)
        assert evidence.target_given and {each.label for each in evidence.peaks} == {name}
        best = max(evidence.peaks, key=lambda each: each.response)
        assert best.response == pytest.approx(1) and best.branch == "discriminative"
        assert (best.x, best.y) == (pytest.approx(80 * x, abs=5), pytest.approx(60 * y, abs=5))
    with pytest.raises(UserError, match="no class is called 'pink', expected one of red, green, blue"):
        explain(model, file, "pink", ONE)


def test_each_peak_says_its_class(tmp_path: Path) -> None:
    """An unsure network (Eq. 3 adds up the maps of five classes) looks at both squares, for different reasons."""
    places = {"red": (0.3, 0.5), "green": (0.7, 0.5)}
    file = write_squares(tmp_path / "v.mov", lambda number: [(key, *at) for key, at in places.items()])
    evidence = explain(recognizer(delta=-1.0), file, views=ONE)
    for name, (x, y) in places.items():
        near = min(evidence.peaks, key=lambda each: abs(each.x - 80 * x) + abs(each.y - 60 * y))
        assert abs(near.x - 80 * x) < 6 and abs(near.y - 60 * y) < 6 and near.label == name


@pytest.mark.parametrize(
    "stride,fps,frames", [(1, None, 23), (3, None, 23), (2, 10.0, 40), (1, 50.0, 15), (2, None, 3)]
)
def test_frame_scores_by_an_independent_loop(
    tmp_path: Path, stride: int, fps: float | None, frames: int
) -> None:
    """Colours come and go; each frame's scores are the mean over the clips it lies in, linear between their frames."""

    def squares(number: int) -> list[tuple[str, float, float]]:
        return [(NAMES[number * 3 // frames], 0.5, 0.5)]

    file = write_squares(tmp_path / "v.mov", squares, frames=frames)
    model = recognizer(stride=stride, fps=fps)
    evidence = explain(model, file, views=ONE)
    pre = model.preprocess
    video = decode(file, None, pre.test_size(60, 80))
    left = (video.frames.shape[3] - 32) // 2
    pixels = video.frames[:, :, :, left : left + 32]
    backbone = model.model.backbone
    frame_score = []  # of this network a frame's scores depend on that frame alone
    with torch.no_grad():
        for one in pixels:
            features = backbone.features(to_input(one[None, None], pre)[0])
            frame_score.append(backbone.fc(features.mean((2, 3, 4)))[0].softmax(0).double().numpy())
    base = [0]
    if fps is None:
        base = list(range(frames))
    else:
        times, base = np.arange(frames) / 25, []
        step = 0
        while step / fps < frames / 25 - 1e-3:
            base.append(int(np.flatnonzero(times <= step / fps + 1e-3)[-1]))
            step += 1
    assert evidence.base.tolist() == base
    span = clip_span(4, stride)
    expected = []
    for frame in range(frames):
        at = max(index for index, each in enumerate(base) if each <= frame)
        parts = []
        for start in _starts(len(base), span).tolist():
            if start <= at < start + span:
                before = start + (at - start) // stride * stride
                share = (at - before) / stride
                after = before + stride if share else before
                clip = [base[(start + stride * each) % len(base)] for each in range(4)]
                one, two = (frame_score[clip[(each - start) // stride]] for each in (before, after))
                parts.append((1 - share) * one + share * two)
        expected.append(np.mean(parts, 0))
    assert evidence.scores.shape == (frames, 3)
    np.testing.assert_allclose(evidence.scores, expected, atol=1e-5)
    np.testing.assert_allclose(evidence.scores.sum(1), 1, atol=1e-5)


def test_intervals_of_peaks_tile_the_video(tmp_path: Path) -> None:
    file = write_squares(
        tmp_path / "v.mov", moving, pts=[0, 40, 80, 200, 240, 280, 320, 700, 740, 780, 820, 860]
    )
    evidence = explain(recognizer(), file, views=ONE)
    times, peaks = evidence.times, evidence.peaks
    assert sorted({frame for each in peaks for frame in range(each.first, each.last + 1)}) == list(range(12))
    for each in peaks:
        assert each.start == times[each.first]
        assert each.end == (times[each.last + 1] if each.last < 11 else evidence.end)
    assert evidence.end == pytest.approx(0.86 + 0.86 / 11)


def test_the_answer_is_that_of_predict_and_attention_that_of_the_network(
    run: Path, clip_data: VideoSet
) -> None:
    """A trained network, and the maps that its own forward pass returns."""
    trained = load(run, "cpu")
    file = clip_data.entries[-1].path
    evidence = explain(trained, file)
    assert evidence.prediction.to_dict() == trained.predict(file).to_dict()
    pre = trained.preprocess
    video = decode(file, None, pre.test_size)
    top, left = evidence.region.top, evidence.region.left
    across = video.frames.shape[3] / evidence.info.width
    view = video.frames[:, :, round(top) :, round(left * across) :][..., : pre.size, : pre.size]
    for number, look in enumerate(evidence.clips):
        clip = view[look.start : look.start + pre.frames][None]
        with torch.no_grad():
            seen = trained.model(to_input(clip, pre)[0], attention=True).attention
        assert seen is not None
        np.testing.assert_allclose(look.heat[0] / 255, seen.responses[0, 0], atol=0.51 / 255 + 1e-4)
        peaks = seen.peaks[0, 0].nonzero().numpy()
        np.testing.assert_array_equal(look.places[:, 1:], peaks)
        assert not look.further.any()
        frame = int(np.flatnonzero(evidence._shown[:, 0] == number)[0])
        _, marked, sides = evidence.attention(frame)
        np.testing.assert_array_equal(marked[:, :2], peaks)
        np.testing.assert_allclose(sides[0], seen.q_dis[0, 0], atol=1e-4)
        np.testing.assert_allclose(sides[1], seen.q_com[0, 0], atol=1e-3)


@pytest.mark.parametrize("mode", ["expected", "threshold"])
def test_peaks_are_split_as_the_network_splits_them(mode: str, tmp_path: Path) -> None:
    file = write_squares(tmp_path / "v.mov", lambda _: [("red", 0.3, 0.5), ("blue", 0.7, 0.3)], size=(64, 64))
    model = recognizer(eval_mode=mode, response="evidence", erase=0.15)
    evidence = explain(model, file, views=ONE)
    view = next(decode_views(file, model.preprocess, ONE).batches())
    with torch.no_grad():
        seen = model.model(*to_input(view, model.preprocess), attention=True).attention
    assert (
        seen is not None and (seen.peaks[0, 0] & (seen.responses[0, 0] < 0.5)).any()
    )  # the modes differ there
    _, _, branches = evidence.attention(0)  # all frames are alike
    torch.testing.assert_close(
        branches, torch.stack((seen.q_dis[0, 0], seen.q_com[0, 0])), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("per", ["frame", "clip"])
@pytest.mark.parametrize("seed", range(3))
def test_further_peaks_are_those_that_erasing_adds(per: str, seed: int, clip_data: VideoSet) -> None:
    torch.manual_seed(seed)
    pre = Preprocess(size=64, frames=4, canvas=(64, 64), test_canvas=True)
    settings = {"attention_per": per, "response": "evidence", "preprocess": pre.to_dict()}
    model = PeakZoom("tcnn_xs", 3, erase=0.15, width=0.25, classes=NAMES, **settings).eval()
    plain = copy.deepcopy(model)
    plain.config = replace(plain.config, erase=0.0)
    file, added = clip_data.entries[-1].path, 0
    for look in explain(Recognizer.of(model, "cpu"), file, views=ONE).clips:
        clip = decode(file, None, pre.canvas).frames[look.start : look.start + 4][None]
        with torch.no_grad():
            seen = plain(*to_input(clip, pre), attention=True).attention
        assert seen is not None
        frame, row, column = look.places.T
        np.testing.assert_array_equal(look.further, ~seen.peaks[0].numpy()[frame, row, column])
        added += look.further.sum()
    assert added


@pytest.mark.parametrize("score", [0.0, 0.2, 1 / 3, 0.6, 1.0])
def test_heat_fades_to_none_at_a_guess(score: float, tmp_path: Path) -> None:
    file = write_squares(tmp_path / "v.mov", lambda _: [("red", 0.3, 0.5)])
    evidence = explain(recognizer(), file, views=ONE)
    evidence.scores[:] = (1 - score) / 2
    evidence.scores[:, NAMES.index(evidence.target)] = score
    assert evidence.confidence(0) == pytest.approx(max(0, (score - 1 / 3) / (2 / 3)))
    painter = Painter(evidence, 1.0)
    ((_, pixels),) = evidence.video.frames(np.array([0]), painter.size)
    heat, _, _ = evidence.attention(0)
    rows = slice(painter.top, painter.top + painter.height)
    crop = pixels[rows, painter.left : painter.left + painter.width].float()
    change = (painter._heated(crop, heat, evidence.confidence(0)) - crop).abs()
    full = (painter._heated(crop, heat, 1.0) - crop).abs()
    torch.testing.assert_close(change, evidence.confidence(0) * full, rtol=1e-4, atol=1e-3)
    assert full.max() > 20


def test_json_holds_every_peak(run: Path, clip_data: VideoSet) -> None:
    evidence = explain(load(run, "cpu"), clip_data.entries[-1].path, views=ONE)
    told = json.loads(json.dumps(evidence.to_dict()))
    assert told["class"] == told["evidence_for"] and set(told["frame_scores"]) == set(clip_data.classes)
    assert len(told["peaks"]) == len(evidence.peaks) and len(told["times"]) == 12
    assert all(len(each) == 12 for each in told["frame_scores"].values())
    for each in told["peaks"]:
        assert set(each) == {
            "first_frame",
            "last_frame",
            "start",
            "end",
            "x",
            "y",
            "class",
            "response",
            "side",
            "further",
        }
        assert each["side"] == ("discriminative" if each["response"] >= 0.5 else "complementary")


def test_a_network_that_does_not_zoom_names_no_branch(run: Path, clip_data: VideoSet) -> None:
    file = clip_data.entries[-1].path
    evidence = explain(load(run / "tcnn", "cpu"), file, views=ONE)
    assert evidence.peaks and not any(peak.further for peak in evidence.peaks) and not evidence.zoomed
    assert {peak["side"] for peak in evidence.to_dict()["peaks"]} == {None}
    assert explain(load(run, "cpu"), file, views=ONE).zoomed


def test_unreadable_files_and_exported_models(tmp_path: Path, run: Path, clip_data: VideoSet) -> None:
    with pytest.raises(DecodeError, match="no such file"):
        explain(load(run, "cpu"), tmp_path / "absent.mp4")
    trained = load(run, "cpu")
    with pytest.raises(UserError, match="evidence needs the network itself"):
        explain(Recognizer(trained.engine), clip_data.entries[-1].path)


@pytest.mark.slow
def test_real_clips_of_every_shape(shared_data: Path) -> None:
    """Peaks lie within the frame, times within the video, whatever the size; and the same file gives the same."""
    pre = Preprocess(size=64, frames=8, stride=4, canvas=(64, 64), fps=15.0)
    torch.manual_seed(0)
    network = PeakZoom("tcnn_xs", 3, width=0.25, preprocess=pre.to_dict())
    model = Recognizer.of(network, "cpu")
    for file in sorted((shared_data / "clips").iterdir()):
        evidence = explain(model, file, views=Views(clips=1, crops=3))
        info = evidence.info
        assert evidence.scores.shape == (info.frames, 3) and evidence.peaks, file
        for each in evidence.peaks:
            assert -0.5 <= each.x <= info.width - 0.5 and -0.5 <= each.y <= info.height - 0.5, file
            assert 0 <= each.start <= each.end <= evidence.end + 1e-9, file
    assert explain(model, file, views=Views(clips=1, crops=3)).to_dict() == evidence.to_dict()


def test_memory_is_that_of_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more frames are alive than two clips have, however long the video is."""
    alive, most = 0, 0
    true = HeldVideo.frames

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counted(*given: object) -> Iterator[tuple[int, torch.Tensor]]:
        nonlocal alive, most
        for number, pixels in true(*given):  # type: ignore[arg-type]
            array = pixels.numpy().copy()  # lives as long as any tensor that shares its memory
            weakref.finalize(array, gone)
            alive, most = alive + 1, max(most, alive + 1)
            kept = torch.from_numpy(array)
            del array
            yield number, kept
            del kept

    monkeypatch.setattr(HeldVideo, "frames", counted)
    file = write_squares(tmp_path / "v.mov", moving, frames=90)
    evidence = explain(recognizer(frames=8), file, views=ONE)
    assert evidence.info.frames == 90 and evidence.peaks
    assert 8 <= most <= 10 and alive == 0
