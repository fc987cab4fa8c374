"""The labels of an archive: a folder of Parquet files, one row a video, that is whole at every moment.

::

    OUT/part=c/5f0b4c....parquet    rows of one batch; 16 partitions, a to p, by a digest of the address
    OUT.settings.json               all that decides a prediction; another model is refused
    OUT.lock                        while a process labels

====== ================= ================================================================================
path   string            absolute path, or address; bytes that are no text are escaped
size   int64             of the file, in bytes; null where its storage does not say
changed string           its entity tag or time of change (local files: nanoseconds since 1970); may be ""
class  string            the best class; null where there is no prediction, or it is rejected
score  double            of the best class
scores list of double    of every class, averaged over the views; their order is in the metadata, see below
views  int32             of the early exit: how many it took; null without it
closer int32             of these, those in stage 2
problem string           what was wrong with the file although it gave frames; null = nothing
error  string            why there is no prediction; null where there is one
fault  string            of an error: ``file``, ``storage``, or ``worker``; null without one
====== ================= ================================================================================

With ``reject``, ``confidence`` (double) and ``rejected`` (bool) follow the scores; of a model for several labels,
``labels`` (list of string), all that it names, best first.

The metadata of each file has, under the key ``peakzoom``, the settings as JSON; ``settings["classes"]`` is the order of
``scores``.

**Whole.** A file is written into a folder of drafts, synced, and renamed into its place. The folder of drafts belongs
to one driver: the next one removes it before it looks at what is there. So a worker that outlived its driver (on the
far side of a broken network, say) has nothing left to rename, and no video gets two rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peakzoom.apps.batch.listing import ListedVideo, digest
from peakzoom.utils.durable import draft_of, sync
from peakzoom.utils.errors import UserError, printable
from peakzoom.video.container import one_line

PARTS = "abcdefghijklmnop"  # letters, so that no reader takes some of them for numbers
DRAFTS = "_drafts-"  # readers of Parquet folders pass over names that begin so
KEY = b"peakzoom"


class Known(NamedTuple):
    """What the table says of a video; the fields but the first are columns."""

    file: Path
    size: int | None
    changed: str
    error: str | None
    fault: str | None


def schema(settings: dict[str, Any]) -> Any:
    """The columns above, as pyarrow has them."""
    import pyarrow as pa

    text, number, count = pa.string(), pa.float64(), pa.int32()
    columns = [
        *[("path", text), ("size", pa.int64()), ("changed", text)],
        *[("class", text), ("score", number), ("scores", pa.list_(number))],
        *[("views", count), ("closer", count), ("problem", text), ("error", text), ("fault", text)],
    ]
    if "rejection" in settings:
        columns[6:6] = [("confidence", number), ("rejected", pa.bool_())]
    if "thresholds" in settings:
        columns[6:6] = [("labels", pa.list_(text))]
    return pa.schema(columns, metadata={KEY: json.dumps(settings).encode()})


def part_of(item: ListedVideo) -> str:
    """The partition: by the address alone, so that a video stays in it."""
    return PARTS[hashlib.sha256(item.shown.encode()).digest()[0] % len(PARTS)]


def batches_of(items: Iterable[ListedVideo], most: int) -> list[list[ListedVideo]]:
    """Videos that are labelled and written together: of one partition, in their order, at most so many."""
    parts: dict[str, list[ListedVideo]] = defaultdict(list)
    for item in items:
        parts[part_of(item)].append(item)
    return [inside[at : at + most] for inside in parts.values() for at in range(0, len(inside), most)]


def new_drafts(out: Path) -> Path:
    """A folder of drafts; those of earlier drivers are gone before it is there."""
    remove_drafts(out)
    drafts = out / f"{DRAFTS}{uuid.uuid4().hex}"
    drafts.mkdir(parents=True)
    return drafts


def remove_drafts(out: Path) -> None:
    """Remove all folders of drafts: what is not in its place by now will never be."""
    for old in out.glob(f"{DRAFTS}*"):
        gone = old.with_name(f"{DRAFTS}{uuid.uuid4().hex}")
        old.rename(gone)  # at once: while files are removed one by one, a worker could rename one
        shutil.rmtree(gone)


def write_rows(
    drafts: Path, items: Sequence[ListedVideo], rows: Sequence[dict[str, Any]], columns: Any
) -> None:
    """Write the rows of a batch, whose videos are of one partition; done once more, they replace themselves."""
    import pyarrow as pa

    folder = drafts.parent / f"part={part_of(items[0])}"
    folder.mkdir(exist_ok=True)
    _write(pa.Table.from_pylist(list(rows), columns), drafts, folder / f"{digest(items)}.parquet")


def _write(table: Any, drafts: Path, file: Path) -> None:
    import pyarrow.parquet as pq

    with draft_of(file, drafts / uuid.uuid4().hex) as draft:
        pq.write_table(table, draft)


def row_of(item: ListedVideo) -> dict[str, Any]:
    """What every row says of its video."""
    return {"path": item.shown, "size": item.size, "changed": item.changed}


def row_without_prediction(item: ListedVideo, reason: str, fault: str) -> dict[str, Any]:
    """The row of a video that gave no prediction."""
    return {**row_of(item), "error": printable(reason), "fault": fault}


def read_known(out: Path) -> dict[str, Known]:
    """What the table says of each video, by its path.

    Raises:
        UserError: a file of the table is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, Known] = {}
    columns = ["path", *Known._fields[1:]]
    for file in sorted(out.glob("part=*/*.parquet")):
        try:
            rows = pq.read_table(file, columns=columns, partitioning=None).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"{file} is damaged ({one_line(error)}): remove it, and its videos are labelled again"
            ) from error
        found |= {row.pop("path"): Known(file, **row) for row in rows}
    return found


def remove_rows(drafts: Path, known: dict[str, Known]) -> None:
    """Take the rows of these videos out of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    files: dict[Path, list[str]] = defaultdict(list)
    for path, row in known.items():
        files[row.file].append(path)
    for file, paths in files.items():
        table = pq.read_table(file, partitioning=None)
        kept = table.filter(pc.invert(pc.is_in(table["path"], value_set=pa.array(paths, pa.string()))))
        if len(kept):
            _write(kept, drafts, file)
        else:
            file.unlink()
            sync(file.parent)
