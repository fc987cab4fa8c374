"""The benchmarks on a machine that has PyTorch and OpenCV and no PyAV, as lent GPU machines are.

Here, where PyAV is: a copy of real clips in one folder to carry, and digests of the frames that PyAV gives.

    python benchmarks/bare.py pack UT_INTERACTION/clips.csv WEIZMANN/clips.csv --into carried

There OpenCV decodes them; of these clips it gives the same bytes, and others are refused. After that every benchmark
finds its clips as if ``held.py --real`` had written them. What is carried has a module in the place of PyAV, which can
be imported and not used:

    export PYTHONPATH=carried:src:benchmarks
    python benchmarks/bare.py unpack carried clips
    python benchmarks/branches.py clips --out branches.jsonl --seeds 0

With ``HELD_SIZE=224`` before ``pack`` and ``unpack`` the clips are those of networks of that size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from held import SIDE, new_array, read_real

from peakzoom.data.datasets import open_data
from peakzoom.video.views import resize


def digest(frames: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()[:16]


def pack(tables: Sequence[Path], into: Path) -> None:
    """Copy clips, and note how each is decoded: by ``held.py``, then digests of what it wrote."""
    for table in tables:
        read_real(table, into / "decoded", workers=os.cpu_count() or 1)
        name = table.parent.name
        stored = np.load(into / "decoded" / f"real-{name}.npy", mmap_mode="r")
        rows = json.loads((into / "decoded" / f"real-{name}.json").read_text(encoding="utf-8"))
        paths = [entry.path for entry in open_data(table).entries]
        for number, (path, row) in enumerate(zip(paths, rows, strict=True)):
            row["file"] = f"{name}/{number}{path.suffix}"
            row["digest"] = digest(stored[number, : row["frames"]])
            (into / row["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into / row["file"])
        (into / f"real-{name}-{SIDE}.json").write_text(json.dumps(rows), encoding="utf-8")
    shutil.rmtree(into / "decoded")
    shutil.copyfile(Path(__file__).with_name("without_av.py"), into / "sitecustomize.py")


def _by_opencv(job: tuple[Path, Path, int]) -> tuple[int, str]:
    import cv2

    path, array, number = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    capture, pictures = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        pictures.append(read[1][..., ::-1])
    frames = torch.from_numpy(np.ascontiguousarray(np.stack(pictures))).permute(0, 3, 1, 2)
    small = resize(frames, SIDE, SIDE).contiguous().numpy()
    np.load(array, mmap_mode="r+")[number, : len(small)] = small
    return len(small), digest(small)


def unpack(carried: Path, clips: Path) -> None:
    """Decode what was packed; refuses clips that have other frames here."""
    clips.mkdir(parents=True, exist_ok=True)
    for noted in sorted(carried.glob(f"real-*-{SIDE}.json")):
        name = noted.stem.removesuffix(f"-{SIDE}")
        rows = json.loads(noted.read_text(encoding="utf-8"))
        array = clips / f"{name}.npy"
        new_array(array, (len(rows), max(row["frames"] for row in rows), 3, SIDE, SIDE))
        with ProcessPoolExecutor() as pool:
            found = list(
                pool.map(_by_opencv, [(carried / row["file"], array, n) for n, row in enumerate(rows)])
            )
        wrong = [
            row["file"] for row, got in zip(rows, found, strict=True) if got != (row["frames"], row["digest"])
        ]
        if wrong:
            raise SystemExit(f"{len(wrong)} clips have other frames here than PyAV gives, as {wrong[0]}")
        array.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")
        print(f"{name}: {len(rows)} clips, byte for byte", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--into", type=Path)
    asked = parser.parse_args()
    if asked.what == "pack":
        if asked.into is None:
            parser.error("pack needs --into FOLDER")
        pack(asked.paths, asked.into)
    elif len(asked.paths) == 2:
        unpack(*asked.paths)
    else:
        parser.error("unpack needs the packed folder and a new one")


if __name__ == "__main__":
    main()
