"""The rule for events, and how much is computed for them: chosen on labelled videos, kept in the run.

A watch is cheaper where it looks less often (each ``nth`` window), and where the original branch alone scores the
windows in which it leads (``exit_lead``). Each of these settings has its own best rule for events (threshold,
hysteresis, gaps, shortest event). The cheapest is taken whose F1 is at most a point below that of the full cost, which
is every window by all branches. With which window a watch begins is chance, and no merit of a setting: its F1 is the
mean over all ``nth`` of them. All of it is replayed from the scores of one full watch
(:mod:`peakzoom.apps.watch.measure`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from peakzoom.apps.watch.events import Event, Merger, Namer
from peakzoom.apps.watch.measure import Watched, cost_a_second, seconds_of, thinned
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.evaluation.events import Interval, f1_and_false_alarms
from peakzoom.inference.early_exit import Work
from peakzoom.model.schema import TABLE, TEXT, expect, is_text, maybe, number, whole
from peakzoom.model.schema import Rule as Expected
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.plain import read_object
from peakzoom.utils.progress import Progress
from peakzoom.video.clips import TIMESTAMP_ROUNDING

FOLDER, FILE = "events", "rule.json"  # in a run
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
KEEPS = (1.0, 0.8, 0.6, 0.4)  # of the threshold
GAPS = (0.0, 1.0, 2.0)  # windows' distances
SHORTEST = (0.0, 0.5, 1.0, 1.5)  # windows
NTH = (1, 2, 3, 4, 6, 8)
LEADS = (0.99, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0)  # 0: the original branch alone, always
MAY_LOSE = 0.01  # of F1, for less work
WANTED = 0.2  # of the full cost: a rule that costs more is said to


@dataclass(frozen=True)
class Setting:
    """What makes events of a video, what it costs, and what it gave on the videos that it was chosen on.

    Attributes:
        threshold, keep, gap, shortest, every, nth, exit_lead: as in
            :class:`~peakzoom.apps.watch.options.WatchOptions`.
        f1, false_alarms_an_hour: of the events; means over the ``nth`` windows that a watch may begin with.
        share: of the windows that are scored.
        early: of these, the share that the original branch alone scores.
        multiply_adds_a_second: in G, of a second of video; None in files that are older than the early exit.
    """

    threshold: float
    keep: float
    gap: float
    shortest: float
    every: float | None
    f1: float
    false_alarms_an_hour: float
    share: float
    nth: int = 1
    exit_lead: float | None = None
    early: float = 0.0
    multiply_adds_a_second: float | None = None

    def options(self, options: WatchOptions) -> WatchOptions:
        """These options with what was chosen."""
        names = ("threshold", "keep", "gap", "shortest", "every", "nth", "exit_lead")
        return replace(options, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Rule:
    """What :func:`choose` chose.

    Attributes:
        chosen: the setting that a watch takes.
        full: the best one at the full cost; None where none of those has few enough false alarms, and in files that
            are older than the early exit.
        ignore: classes that are no events.
        allowed: false alarms an hour that were allowed.
        weights: digest of the model's.
        cheap: where the chosen one costs more than :data:`WANTED` of the full cost, the best that does not; None where
            none has few enough false alarms, or the chosen one is cheap itself.
    """

    chosen: Setting
    full: Setting | None
    ignore: tuple[str, ...]
    allowed: float
    weights: str
    cheap: Setting | None = None

    @property
    def cost(self) -> float | None:
        """Of the chosen setting, as a share of the full cost; None where one of them is not known."""
        full = self.full and self.full.multiply_adds_a_second
        mine = self.chosen.multiply_adds_a_second
        return mine / full if full and mine is not None else None

    def options(self, options: WatchOptions) -> WatchOptions:
        """These options with what was chosen, and with the classes to ignore, unless they name some themselves."""
        ignore = options.ignore or list(self.ignore) or None
        return self.chosen.options(replace(options, ignore=ignore))

    def at_full_cost(self) -> Rule:
        """The rule for every window and all branches.

        Raises:
            UserError: there is none.
        """
        if self.full is None:
            raise UserError(
                "the run has no rule for events at the full cost: remove its folder events and run 'peakzoom calibrate "
                "--events --full-cost'"
            )
        return replace(self, chosen=self.full)


@dataclass(frozen=True)
class _Seen:
    """The videos as one setting sees them: as often as there are windows that it may begin with."""

    starts: Sequence[Mapping[Path, Watched]]
    nth: int
    lead: float | None
    cost: float
    share: float
    early: float


def choose(
    watched: Mapping[Path, Watched],
    labelled: Sequence[Interval],
    options: WatchOptions,
    allowed: float,
    weights: str,
    work: Work,
    cheaper: bool = True,
    progress: Progress | None = None,
) -> Rule:
    """The cheapest setting whose F1 is at most a point below the best at the full cost.

    Of every setting that is looked at it is the rule with the best F1 among those with at most ``allowed`` false alarms
    an hour; of equals the first: higher thresholds, shorter gaps. Where no rule at the full cost is quiet enough, the
    best of the others takes its place.

    Args:
        watched: by file, each window by all branches.
        labelled: their segments.
        options: the other ones of the watch.
        allowed: false alarms an hour.
        weights: digest of the model's.
        work: of a view; without zoomed videos there is no early exit.
        cheaper: False takes the best at the full cost.
        progress: called with (done, all) settings; of these, the dearer ones need not be looked at.

    Raises:
        UserError: no rule has so few false alarms.
    """
    tried = _settings(watched, options, work) if cheaper else [_seen(watched, options, work)]
    report = progress or (lambda done, total: None)
    full = _best(next(each for each in tried if _is_full(each)), labelled, options, allowed)
    found: list[Setting] = []
    for done, seen in enumerate(tried, 1):
        best = full if _is_full(seen) else _best(seen, labelled, options, allowed)
        report(done, len(tried))
        if best is not None:
            found.append(best)
            if full is not None and best.f1 >= full.f1 - MAY_LOSE:
                break
    if not found:
        raise UserError(f"no rule has {allowed:g} false alarms an hour or fewer on these videos: allow more")
    report(len(tried), len(tried))
    highest = max(each.f1 for each in found) if full is None else full.f1
    chosen = next(each for each in found if each.f1 >= highest - MAY_LOSE)
    rule = Rule(chosen, full, tuple(options.ignore or ()), allowed, weights)
    if rule.cost is None or rule.cost <= WANTED:
        return rule
    cheap = [each for each in found if (replace(rule, chosen=each).cost or 0.0) <= WANTED]
    return replace(rule, cheap=max(cheap, key=lambda each: each.f1, default=None))


def _settings(watched: Mapping[Path, Watched], options: WatchOptions, work: Work) -> list[_Seen]:
    """Those that are tried, the cheapest first; of leads that let the same windows exit, the highest."""
    found: list[_Seen] = []
    for nth in NTH:
        counts: set[float] = set()
        for lead in (None, *LEADS) if work.zoomed else (None,):
            seen = _seen(watched, options, work, nth, lead)
            if seen.early not in counts:
                found.append(seen)
            counts.add(seen.early)
    return sorted(found, key=lambda each: (each.cost, each.nth))


def _seen(
    watched: Mapping[Path, Watched],
    options: WatchOptions,
    work: Work,
    nth: int = 1,
    lead: float | None = None,
) -> _Seen:
    starts = [
        {file: thinned(each, nth, lead, first) for file, each in watched.items()} for first in range(nth)
    ]
    seen = starts[0]
    windows = [window for each in seen.values() for window in each.windows]
    every, early = (
        sum(len(each.windows) for each in watched.values()),
        sum(bool(each.early) for each in windows),
    )
    cost = cost_a_second(seen, work, options.crops) or 0.0
    return _Seen(starts, nth, lead, cost, len(windows) / max(every, 1), early / max(len(windows), 1))


def _is_full(seen: _Seen) -> bool:
    return seen.nth == 1 and seen.lead is None


def _best(seen: _Seen, labelled: Sequence[Interval], options: WatchOptions, allowed: float) -> Setting | None:
    """The rule with the best F1 among those that are quiet enough; None where none is."""
    first, seconds = next(iter(seen.starts[0].values())), seconds_of(seen.starts[0])
    window, every = first.window or 1.0, first.every or 0.5 * seen.nth
    best: Setting | None = None
    for threshold, part in product(reversed(THRESHOLDS), KEEPS):
        keep = round(part * threshold, 4)
        rule = replace(options, threshold=threshold, keep=keep)
        named = [[_named(each, rule) for each in watched.values()] for watched in seen.starts]
        for gap in (round(each * every, 3) for each in GAPS):
            events = [list(_merged(*each, gap)) for each in zip(seen.starts, named, strict=True)]
            for shortest in (round(each * window, 3) for each in SHORTEST):
                found = [f1_and_false_alarms(labelled, _at_least(shortest, each), seconds) for each in events]
                f1, alarms = (mean(values) for values in zip(*found, strict=True))
                if alarms <= allowed and (best is None or f1 > best.f1):
                    best = Setting(
                        *(threshold, keep, gap, shortest, options.every, f1, alarms, seen.share),
                        *(seen.nth, seen.lead, seen.early, seen.cost),
                    )
    return best


def _at_least(shortest: float, events: Sequence[Interval]) -> list[Interval]:
    return [each for each in events if each.end - each.start >= shortest - TIMESTAMP_ROUNDING]


# A window: start, end, class or None, score. A list of them between two breaks, as a watch merges it.
_Named = list[tuple[float, float, str | None, float]]


def _named(watched: Watched, options: WatchOptions) -> list[_Named]:
    """The class of each window, by :class:`Namer`, which begins anew after a break."""
    found = []
    for part in watched.parts():
        namer = Namer(part[0].classes, options.level, options.keep, options.ignore or ())
        found.append(
            [
                (each.start, each.end, namer.name(each.scores, each.confidence), float(each.scores.max()))
                for each in part
            ]
        )
    return found


def _merged(watched: Mapping[Path, Watched], named: Sequence[list[_Named]], gap: float) -> Iterator[Interval]:
    """The events of all files, however short."""
    for file, parts in zip(watched, named, strict=True):
        for event in (each for part in parts for each in _events(part, gap)):
            yield Interval(file, event.start, event.end, event.name, event.score)


def _events(part: _Named, gap: float) -> Iterator[Event]:
    merger = Merger(gap)
    for window in part:
        yield from merger.add(*window)
    yield from merger.end()


# The file ------------------------------------------------------------------------------------------------------------

SECONDS, SHARE = number(0, 1e9), number(0, 1)
SETTING = {  # what each value of a file may be
    **dict.fromkeys(("threshold", "keep", "f1", "share", "early"), SHARE),
    **dict.fromkeys(("gap", "shortest"), SECONDS),
    "every": maybe(number(0, 1e9, above=True)),
    "false_alarms_an_hour": number(0, 1e12),
    "nth": whole(1, 10**6),
    "exit_lead": maybe(SHARE),
    "multiply_adds_a_second": maybe(number(0, 1e12)),
}
NEEDED = ("threshold", "keep", "gap", "shortest", "every", "f1", "false_alarms_an_hour", "share")
IGNORED = Expected("a list of names", lambda value: isinstance(value, list) and all(map(is_text, value)))


def read_rule(run: Path) -> Rule | None:
    """The rule that was chosen for a run; None where none was.

    Raises:
        UserError: the file is damaged.
    """
    file = run / FOLDER / FILE
    if not file.exists():
        return None
    try:
        values = read_object(file)
        others = {name: values.get(name) for name in ("full", "cheap")}
        for name, value in others.items():
            expect(name, value, maybe(TABLE))
        for name, rule in (("ignore", IGNORED), ("allowed", number(0, 1e12)), ("weights", TEXT)):
            expect(name, values[name], rule)
        return Rule(
            _setting(values, ""),
            ignore=tuple(values["ignore"]),
            allowed=float(values["allowed"]),
            weights=values["weights"],
            **{
                name: None if value is None else _setting(value, f"{name}.") for name, value in others.items()
            },
        )
    except (ValueError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise UserError(
            f"{file} is damaged ({reason}): remove {file.parent}, and run 'peakzoom calibrate --events' again"
        ) from error


def _setting(values: Mapping[str, Any], within: str) -> Setting:
    """Of a file's values, which are checked."""
    if missing := [name for name in NEEDED if name not in values]:
        raise UserError(f"{within}{missing[0]} is missing")
    given = {name: values[name] for name in SETTING if name in values}
    for name, value in given.items():
        expect(f"{within}{name}", value, SETTING[name])
    if given["keep"] > given["threshold"]:
        raise UserError(
            f"{within}keep is {given['keep']:g}, expected at most the threshold, {given['threshold']:g}"
        )
    return Setting(**given)


def to_json(rule: Rule) -> str:
    """A rule as text."""
    values = {
        **asdict(rule.chosen),
        "full": None if rule.full is None else asdict(rule.full),
        "cheap": None if rule.cheap is None else asdict(rule.cheap),
        "ignore": list(rule.ignore),
        "allowed": rule.allowed,
        "weights": rule.weights,
    }
    return json.dumps(values, indent=2) + "\n"
