"""Events by their definition, instant by instant: slow and plain, for tests to compare with."""

from __future__ import annotations

import numpy as np

from peakzoom.apps.watch.events import Event

Said = tuple[float, float, str | None, float]  # start, end, class, score of a window


def by_instants(windows: list[Said], gap: float) -> list[Event]:
    """The definition, instant by instant: cells of a quarter second, for windows at even whole seconds.

    A cell belongs to the window with the nearest centre of those that cover it. An event begins at the first cell
    of a class after the last event, and reaches to the last cell of its class that can be reached over stretches
    of at most ``gap``.
    """
    step = 0.25
    last = max(end for _, end, _, _ in windows)
    owners: list[int | None] = []
    for cell in range(round(last / step)):
        middle = (cell + 0.5) * step
        covering = [i for i, (start, end, _, _) in enumerate(windows) if start < middle < end]
        owners.append(
            min(covering, key=lambda i: abs((windows[i][0] + windows[i][1]) / 2 - middle), default=None)
        )
    labels = [None if owner is None else windows[owner][2] for owner in owners]
    events, cell = [], 0
    while cell < len(labels):
        if labels[cell] is None:
            cell += 1
            continue
        name, end = labels[cell], cell
        for other in range(cell, len(labels)):
            if labels[other] == name and (other - end - 1) * step <= gap:
                end = other
        inside = {owners[c] for c in range(cell, end + 1) if labels[c] == name}
        scores = [windows[i][3] for i in sorted(each for each in inside if each is not None)]
        assert name is not None
        events.append(
            Event(cell * step, (end + 1) * step, name, float(np.mean(scores)), max(scores), len(scores))
        )
        cell = end + 1
    return events
