"""What the page says of one clip, as pieces of HTML: the prediction first, then the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from peakzoom.apps.serve.errors import told
from peakzoom.apps.serve.service import Shown, number
from peakzoom.display.templates import templates
from peakzoom.explanation import Evidence
from peakzoom.inference.prediction import NONE, Prediction, best_classes
from peakzoom.utils.words import counted

DROP = "Drop a clip, record one, or choose an example: what it shows appears here."
LOOKING = "Looking for where and when it is seen ..."
LOADING = "Looking at the clip ..."

_macros: Any = templates("peakzoom.apps.serve").get_template("result.html.j2").module


def hint(text: str) -> str:
    """A line in place of a result that is not there yet."""
    return str(_macros.hint(text))


def problem(error: Exception) -> str:
    """The sentence of an error, in place of a result."""
    return str(_macros.problem(told(error).sentence))


def prediction_html(prediction: Prediction, averaged: str) -> str:
    """A sentence, and the scores as bars; what each branch predicts is folded away.

    Args:
        prediction: what to show.
        averaged: a sentence on what the scores are means of.
    """
    best = [
        {"name": name, "percent": f"{100 * score:.1f}", "score": number(score)}
        for name, score in prediction.top(5)
    ]
    note = f"The file: {prediction.problem}." if prediction.problem else ""
    return str(_macros.prediction(_sentence(prediction), best, _branches(prediction), note, averaged))


def evidence_html(shown: Shown) -> str:
    """The evidence as a video and a figure, which a screen reader can tell of too."""
    evidence = shown.evidence
    count = len(evidence.peaks)
    said = f"Evidence for {evidence.target}: {counted(count, 'peak')} of its response."
    said += " Heat fades with the score of each frame, down to none at a guess."
    video, figure = _address(shown.video), _address(shown.figure)
    return str(_macros.evidence(said, video, figure, _described(evidence)))


def _address(file: Path) -> str:
    """A file as the page asks for it, by a path from where the page lies, also behind a proxy."""
    return f"gradio_api/file={quote(file.as_posix())}"


def _described(evidence: Evidence) -> dict[str, str]:
    """What the pictures show, for those who do not see them."""
    where = "; ".join(
        f"{peak.start:.2f} to {peak.end:.2f} s at x {peak.x:.0f}, y {peak.y:.0f}"
        for peak in sorted(evidence.peaks, key=lambda each: -each.response)[:3]
    )
    strongest = f" The strongest peaks: {where}." if where else " There is no peak."
    name, zoomed = evidence.info.path.name, "".join(f", the {each} video" for each in evidence.zoomed)
    return {
        "video": f"{name} with the response for {evidence.target}, its peaks{zoomed}.",
        "figure": f"Moments of {name}: frame, response and peaks{zoomed}; below, the scores of classes against "
        f"time.{strongest}",
    }


def _sentence(prediction: Prediction) -> list[dict[str, Any]]:
    """The prediction in words; the parts that are strong are names."""
    name, score = prediction.top(1)[0]

    def strong(text: str) -> dict[str, Any]:
        return {"text": text, "strong": True}

    def plain(text: str) -> dict[str, Any]:
        return {"text": text, "strong": False}

    closest = [plain(" Closest: "), strong(name), plain(f", with a score of {number(score)}.")]
    if (confidence := prediction.confidence) and confidence.rejected:
        return [strong(f"{NONE.capitalize()}:"), plain(f" {confidence.said}."), *closest]
    if prediction.thresholds is not None:
        named = prediction.labels
        if not named:
            return [strong(f"{NONE.capitalize()}"), plain(" reaches its threshold."), *closest]
        parts: list[dict[str, Any]] = []
        for each, its in named:
            parts += [plain(" and ") if parts else plain(""), strong(each), plain(f", {number(its)}")]
        return [*parts, plain(".")]
    if prediction.unsure:
        guess = number(1 / len(prediction.classes))
        said = f" A guess among {len(prediction.classes)} classes scores {guess}."
        return [strong("Not sure."), *closest, plain(said)]
    return [strong(name), plain(f", with a score of {number(score)}.")]


def _branches(prediction: Prediction) -> list[dict[str, str]]:
    """The best class of each branch; none where there is one branch alone."""
    rows = []
    for branch in prediction.shown_branches:
        ((best, score),) = best_classes(prediction.classes, prediction.scores[branch], 1)
        named = best if prediction.thresholds is None else ", ".join(prediction.reached(branch)) or NONE
        rows.append({"branch": branch, "name": named, "score": number(score)})
    return rows
