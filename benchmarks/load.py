"""``peakzoom serve`` under many visitors at once: is any request lost, how long do they wait, does memory grow.

The server is a process of its own, as users start it. Every visitor uploads a clip and asks for its class, again and
again; one in ten asks for the film too. Each answer is compared with ``predict``. It ends with an error if a
request has no answer or not the right one, if nobody asked, or if the server does not end as it is told to.

    python benchmarks/load.py quickstart/run quickstart/clips --visitors 50 --minutes 10
"""

from __future__ import annotations

import argparse
import html
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

from soak import resident
from timing import machine
from visiting import Visitor

from peakzoom.cli.inputs import find_videos
from peakzoom.cli.stop import INTERRUPTED
from peakzoom.inference.recognizer import load
from peakzoom.video.sampling import Views

CLIPS = 40  # different ones
PROTOCOL = Views(clips=3, crops=1)  # the command's own


def serve(run: Path) -> tuple[subprocess.Popen[str], str]:
    """The server's process and its address."""
    program = str(Path(sys.executable).with_name("peakzoom"))
    command = [program, "serve", str(run), "--num-clips", "3", "--crops", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    files = list(find_videos([asked.clips]))[:: max(1, len(list(find_videos([asked.clips]))) // CLIPS)]
    recognizer = load(asked.run, "cpu")
    expected = {file: recognizer.predict(file, PROTOCOL).top(1)[0] for file in files}
    print(f"{machine()}; {asked.visitors} visitors, {asked.minutes:g} minutes, {len(files)} clips")
    process, address = serve(asked.run)
    waits: dict[str, list[float]] = {"class": [], "film": []}
    outcomes: Counter[str] = Counter()
    lock, end, turn = threading.Lock(), time.monotonic() + 60 * asked.minutes, count()

    def visit() -> None:
        visitor = Visitor(address)
        while time.monotonic() < end:
            number = next(turn)
            file, film = files[number % len(files)], number % 10 == 0
            start = time.monotonic()
            try:
                found = visitor.recognise(file, film)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is counted and shown)
                found = {"success": False, "output": {"error": f"{type(error).__name__}: {error}"}}
            spent = time.monotonic() - start
            name, score = expected[file]
            if not found["success"]:
                outcome = str(found["output"]["error"])
            elif film:
                shown = found["output"]["data"][0]
                right = f"{html.escape(name)}</strong>, with a score of {score:.2f}." in shown
                outcome = "answered" if right else "answered otherwise"
            else:
                row = found["output"]["data"][0]["data"][0]
                outcome = "answered" if row[1:3] == [name, f"{score:.3f}"] else "answered otherwise"
            with lock:
                outcomes[outcome] += 1
                waits["film" if film else "class"].append(spent)

    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(asked.visitors)]
    for each in visitors:
        each.start()
    print("\n| minute | answered so far | resident memory of the server, MB |\n|---|---|---|")
    for minute in range(round(asked.minutes) + 1):
        print(f"| {minute} | {sum(outcomes.values())} | {resident(process.pid):.0f} |", flush=True)
        time.sleep(max(0.0, min(60.0, end - time.monotonic())))
    for each in visitors:
        each.join(600)
    lost = sum(each.is_alive() for each in visitors)
    print(f"\nrequests: {sum(outcomes.values())}; without any answer: {lost}")
    for outcome, number in outcomes.most_common():
        print(f"- {outcome}: {number}")
    print("\n| asked for | requests | median wait, s | 95% | 99% | longest |\n|---|---|---|---|---|---|")
    for kind, spent in waits.items():
        if len(spent) > 1:
            cuts = statistics.quantiles(spent, n=100)
            cells = (statistics.median(spent), cuts[94], cuts[98], max(spent))
            print(f"| {kind} | {len(spent)} | " + " | ".join(f"{each:.1f}" for each in cells) + " |")
    print(f"\nresident memory of the server at the end: {resident(process.pid):.0f} MB")
    ended = process.poll()
    if ended is None:
        os.kill(process.pid, signal.SIGINT)
        ended = process.wait(60)
    print(f"the server ended with exit code {ended}")
    asked_for = sum(outcomes.values())
    wrong = asked_for - outcomes["answered"]
    if lost or wrong or not asked_for or ended != INTERRUPTED:
        raise SystemExit(
            f"{lost} visitors without any answer, {wrong} of {asked_for} requests without the right one, "
            f"exit code of the server {ended}"
        )


if __name__ == "__main__":
    main()
