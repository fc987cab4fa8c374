"""What results look like in a notebook: plain HTML without script, readable on light and on dark pages.

Nothing sets a text or page colour, so both are the notebook's own. Every name is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakzoom.report.markup import escape_html
from peakzoom.report.shares import interval, share

if TYPE_CHECKING:
    from peakzoom.evaluate import Evaluation
    from peakzoom.predict import Prediction, Recognizer

TOP = 5  # classes of a prediction
BAR = "#3b82f6"  # seen on white and on black
FOLDED = 30  # a longer list is folded away
LEFT = "text-align:left;padding:.2em .6em"
RIGHT = "text-align:right;padding:.2em .6em;font-variant-numeric:tabular-nums"


def prediction_html(prediction: Prediction) -> str:
    """The best classes of one video: a bar and the score of the fused answer, then every branch's score."""
    branches = [name for name in prediction.scores if name != "fused"]
    if len(branches) == 1:  # it is its own answer
        branches = []
    rows = []
    for name, score in prediction.top(TOP):
        place = prediction.classes.index(name)
        bar = (
            f'<div style="width:12em;border:1px solid rgba(128,128,128,.4)"><div style="width:{score:.1%};height:.8em;'
            f'background:{BAR}"></div></div>'
        )
        figures = [f"{score:.3f}", *(f"{prediction.scores[branch][place]:.3f}" for branch in branches)]
        rows.append(_row([_name(name), bar], figures))
    head = _row(["class", ""], ["score", *branches], "th")
    lines = [f"<b>{escape_html(prediction.path.name)}</b>"]
    if prediction.problem:
        lines.append(f"in part: {escape_html(prediction.problem)}")
    if prediction.effort:
        lines.append(f"{prediction.effort.views} views, {prediction.effort.closer} of them looked at closer")
    return _block("<br>".join(lines), _table(head, rows))


def evaluation_html(result: Evaluation) -> str:
    """Accuracies of every branch with their intervals, then the fused answer's class by class."""
    videos = sum(result.counts.values())
    head = _row(["answer"], ["top-1", "95% interval", "top-5", "mean class"], "th")
    rows = []
    for name, branch in result.branches.items():
        top1 = share(round(branch.top1 * videos), videos)
        figures = [f"{branch.top1:.1%}", interval(top1), f"{branch.top5:.1%}", f"{branch.mean_class:.1%}"]
        rows.append(_row([_name(name)], figures))
    each = [
        _row([_name(name)], [str(result.counts[name]), f"{value:.1%}"])
        for name, value in result.fused.per_class.items()
    ]
    classes = _table(_row(["class"], ["videos", "fused accuracy"], "th"), each)
    lines = [f"<b>{videos} videos</b>; intervals are Wilson's and take videos as independent"]
    if result.problems:
        lines.append(f"{len(result.problems)} files are missing, broken or used in part")
    if result.effort:
        views, closer = result.effort.views, result.effort.closer
        lines.append(f"a video took {views:.1f} views on average, {closer:.1f} of them looked at closer")
    return _block("<br>".join(lines), _table(head, rows), _folded(classes, len(each), "classes"))


def recognizer_html(recognizer: Recognizer) -> str:
    """What a model is, and its classes."""
    count = len(recognizer.classes)
    facts = [_row([name, escape_html(value)], []) for name, value in recognizer.facts().items()]
    names = f"<div>{', '.join(map(escape_html, recognizer.classes))}</div>"
    return _block(
        f"<b>Recognizer of {count} classes</b>", _table("", facts), _folded(names, count, "classes")
    )


def progress_html(title: str, done: int, total: int | None) -> str:
    """A bar of how far work is."""
    state = "" if total is None else f' value="{done}" max="{total}"'
    count = "" if total is None else f" {done} of {total}"
    return _block(f"{escape_html(title)} <progress{state}></progress>{count}")


def _name(text: str) -> str:
    """Long ones break anywhere."""
    return f'<span style="overflow-wrap:anywhere;white-space:normal">{escape_html(text)}</span>'


def _row(words: list[str], figures: list[str], tag: str = "td") -> str:
    cells = [f'<{tag} style="{LEFT}">{cell}</{tag}>' for cell in words]
    cells += [f'<{tag} style="{RIGHT}">{cell}</{tag}>' for cell in figures]
    return f"<tr>{''.join(cells)}</tr>"


def _table(head: str, rows: list[str]) -> str:
    top = f"<thead>{head}</thead>" if head else ""
    return f'<table style="margin:.4em 0">{top}<tbody>{"".join(rows)}</tbody></table>'


def _folded(content: str, count: int, what: str) -> str:
    if count <= FOLDED:
        return content
    return f"<details><summary>{count} {what}</summary>{content}</details>"


def _block(*parts: str) -> str:
    return "".join(f"<div>{part}</div>" for part in parts)
