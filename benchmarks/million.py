"""What a million hours of video would take: benchmarks/scale.md's table from the rates of benchmarks/performance.md.

python benchmarks/million.py [--hours 1000000] [--week 168]
"""

from __future__ import annotations

import argparse

CLIP = 10.0  # seconds of the Kinetics clip of benchmarks/performance.md: 310 frames at about 30 a second
# Core-seconds for one second of video, each from benchmarks/performance.md; two cores where a network ran on both.
RATES = {
    "decode, 426 x 240": 0.135 / CLIP,
    "decode, 1920 x 1080": 0.474 / (103 / 30),
    "score, tcnn_xs at 96, 30 views": 2 * 0.987 / CLIP,
    "score, tcnn at 224, 30 views": 2 * 6.876 / CLIP,
    "score, tcnn_xs, cascade, 4.3% of it": 0.043 * 2 * 0.987 / CLIP,
    "score, tcnn_xs, cascade, 9.2% of it": 0.092 * 2 * 0.987 / CLIP,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1e6, help="of video")
    parser.add_argument("--week", type=float, default=168, help="hours in which it is to be done")
    asked = parser.parse_args()
    for name, rate in RATES.items():
        hours = asked.hours * rate
        print(f"{name:<36} {hours:>12,.0f} core-hours {hours / asked.week:>8,.0f} cores")
    print(f"{'fetch, for each Mbit/s of video':<36} {asked.hours * 3600 / 8e6:>12,.0f} TB")
    print(f"{'the same, of a line':<36} {asked.hours / asked.week / 1000:>12,.1f} Gbit/s")


if __name__ == "__main__":
    main()
