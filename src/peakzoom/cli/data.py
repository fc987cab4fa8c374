"""``peakzoom data``: ``check`` looks at a data set, ``convert`` writes one for other tools, ``render`` makes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from peakzoom.cli.console import print_result, say, show_table
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import new_file
from peakzoom.cli.options import DataArg, DataOptions
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import printable
from peakzoom.utils.processors import processors
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.segments import segment_of
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from peakzoom.data.check import Report
    from peakzoom.data.entries import VideoSet

SHOWN = 20  # problems that are printed
SHOWN_MISSING = 10  # missing videos that are
OUT_LISTS = "; --out FILE.csv lists all"


@grouped
def check(
    data: DataArg,
    *,
    out: Annotated[Path | None, typer.Option(help="Also write the files with problems to this CSV.")] = None,
    shortcuts: Annotated[
        bool, typer.Option("--shortcuts", help="Also say what is guessed without seeing any action.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run that was evaluated: is its model beyond these shortcuts?"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Decoding processes.")] = processors(),
    reading: DataOptions,
) -> None:
    """Report on a data set: videos per class, lengths, sizes, rates, and every file that cannot be read.

    It also says what is doubtful: the same bytes in training and test, classes that can hardly be learned, and more. A
    folder of videos without class folders will do.

    With --shortcuts or --against, also how often the class of the test videos is guessed from how frequent it is, from
    numbers of the file, from one still frame, and from where pixels change.

    Examples:
    - `peakzoom data check clips/`
    - `peakzoom data check clips/ --against runs/mine`
    """
    with new_file(out, "--out"):
        _check(data, out, shortcuts, against, workers, reading)


def _check(
    data: Path, out: Path | None, shortcuts: bool, against: Path | None, workers: int, reading: DataOptions
) -> None:
    """Look at a data set, and write what is wrong with it to ``out``."""
    from peakzoom.cli.shortcuts import read_model, show_shortcuts
    from peakzoom.data.check import check as look

    model = None if against is None else read_model(against)
    guessing = shortcuts or model is not None
    videos = _open(data, reading, guessing)
    with progress_bar(f"decoding {counted(len(videos.entries), 'video')}") as progress:
        report = look(videos, workers, progress, glimpses=guessing)
    _show_classes(report, videos)
    rates = [f"{count} at {rate:g}" for rate, count in report.rates.items()]
    print_result(
        f"frames per second: {_first(rates, 6, 'other rates')}\n"
        f"variable frame rate: {report.variable_rate}; header states another frame count: {report.wrong_headers}\n"
        f"missing, unreadable or damaged: {len(report.problems)}"
    )
    _list_some(
        [f"{printable(problem.path)}: {problem.reason}" for problem in report.problems], SHOWN, OUT_LISTS
    )
    if report.doubts:
        print_result("to be looked at before training:")
    _list_some(report.doubts, SHOWN)
    if out is not None:
        write_csv(out, ["path", "reason"], ((problem.path, problem.reason) for problem in report.problems))
    if report.glimpses:
        show_shortcuts(videos, report.glimpses, model)


def _open(data: Path, reading: DataOptions, guessing: bool) -> VideoSet:
    """The videos, of classes where those are to be guessed."""
    from peakzoom.data.datasets import open_to_look
    from peakzoom.evaluation.shortcuts import expect_one_label

    if guessing:
        videos = reading.videos(data, reading.split_number)
        expect_one_label(videos)
        return videos
    how = (reading.layout, reading.splits, reading.split_number, reading.root, reading.multi_label)
    videos = reading.beside(open_to_look(data, *how))
    for note in videos.notes:
        say(note)
    return videos


def _show_classes(report: Report, videos: VideoSet) -> None:
    """A row a class; where videos are segments of files, also how much of these is labelled."""
    how_many = [(len(videos.entries), "video"), (len(videos.classes), "class"), (report.groups, "group")]
    counts = ", ".join(counted(*each) for each in how_many)
    cut = any(segment_of(entry.path) for entry in videos.entries)
    splits_seen = sorted({name for each in report.classes for name in each.splits if name})
    rows = []
    for each in report.classes:
        sizes = [f"{height}x{width}" for height, width in each.sizes]
        rows.append(
            (
                each.name,
                each.splits.total(),
                *(each.splits.get(name, 0) for name in splits_seen),
                each.unreadable,
                f"{each.frames[1]:g}" if each.frames else "",
                "{:.3g}-{:.3g}-{:.3g}".format(*each.seconds) if each.seconds else "",
                *([f"{each.labelled:.0f}"] if cut else []),
                sizes[0] + (f" +{len(sizes) - 1}" if len(sizes) > 1 else "") if sizes else "",
            )
        )
    total = ["total"] if cut else []
    columns = (
        "class",
        "videos",
        *splits_seen,
        "broken",
        "frames",
        "seconds",
        *total,
        "size",
    )
    show_table(f"{videos.name}: {counts}", columns, rows)
    print_result(
        f"frames: median; seconds: least-median-most{'; total: seconds of the class' if cut else ''}\n"
        "size: height x width of most, and how many others there are"
    )


def _first(texts: list[str], most: int, others: str) -> str:
    """Such as "a, b and 3 more"."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} {others}" if len(texts) > most else "")


def _list_some(lines: list[str], most: int, rest: str = "") -> None:
    """Print the first lines, and how many more there are."""
    for line in lines[:most]:
        print_result(f"  {printable(line)}")
    if len(lines) > most:
        print_result(f"  and {len(lines) - most} more{rest}")


@grouped
def convert(
    data: DataArg,
    out: Annotated[Path, typer.Argument(help="New folder.", show_default=False)],
    *,
    to: Annotated[
        Literal["cvat", "label-studio", "via", "activitynet", "manifest"],
        typer.Option(help="The annotation tool to write for; manifest: a CSV list.", show_default=False),
    ],
    reading: DataOptions,
) -> None:
    """Write the labels of a data set as files of an annotation tool, or those of a tool as a list.

    What is written names the videos by their paths from --root, and every command that takes DATA reads it again. Boxes
    are not converted. Exit code 1 if something had to be left out.

    Examples:
    - `peakzoom data convert clips.csv for_cvat --to cvat`
    - `peakzoom data convert project.json lists --to manifest --root videos/`
    """
    from peakzoom.data.datasets import open_to_look
    from peakzoom.data.exchange.writing import common_root, write_data
    from peakzoom.utils.durable import check_new_folder
    from peakzoom.utils.segments import file_of

    check_new_folder(out)
    how = (reading.layout, reading.splits, reading.split_number, reading.root, reading.multi_label)
    videos = open_to_look(data, *how, without_classes=False)
    videos = reading.beside(videos)
    for note in videos.notes:
        say(note)
    if reading.root is None:
        home = data if data.is_dir() else data.absolute().parent
        inside = all(file_of(each.path).absolute().is_relative_to(home.absolute()) for each in videos.entries)
        root = home if inside else common_root(file_of(each.path) for each in videos.entries)
    else:
        root = reading.root
    written = write_data(videos, root, to, out)
    for note in written.notes:
        say(note)
    print_result(
        f"{counted(len(videos.classes), 'class')}, {counted(written.spans, 'label')} in "
        f"{counted(written.videos, 'video')}: {out}\n"
        f"Read again by: peakzoom data check {written.data} --root {root}"
    )
    if written.problems:
        print_result(f"left out: {len(written.problems)}")
        _list_some([f"{printable(each.path)}: {each.reason}" for each in written.problems], SHOWN)
        raise typer.Exit(1)


@dataclass(frozen=True)
class SyntheticOptions:
    """The fields of :class:`peakzoom.data.synthetic.clips.DatasetSpec` as options."""

    train_clips: Annotated[int, typer.Option(min=0, help="Clips to train on.")] = 400
    test_clips: Annotated[int, typer.Option(min=0, help="Clips to test on.")] = 120
    performers: Annotated[int, typer.Option(min=1, help="Different figures.")] = 24
    backgrounds: Annotated[int, typer.Option(min=1, help="Different places.")] = 24
    test_share: Annotated[
        float, typer.Option(help="Share of performers and places that only test clips show.")
    ] = 0.25
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 32
    fps: Annotated[float, typer.Option(min=0.01, help="Frames a second.")] = 15.0
    difficulty: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much camera motion, clutter, bystanders and noise.")
    ] = 0.5
    height: Annotated[int, typer.Option(help="In pixels, even.")] = 192
    width: Annotated[int, typer.Option(help="In pixels, even.")] = 256
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0
    together: Annotated[
        int, typer.Option(min=1, max=3, help="Actions that a clip shows at once, at most; for --multi-label.")
    ] = 1
    stature: Annotated[
        float,
        typer.Option(help="Factor on how tall people are, above 0 up to 1, for actions that are small."),
    ] = 1.0


@grouped
def render(
    out: Annotated[Path, typer.Argument(help="New folder for the clips.", show_default=False)],
    wanted: SyntheticOptions,
    untrimmed: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1.0,
            help="Long videos of so many seconds in place of clips, with actions and pauses; --frames does not count.",
            show_default=False,
        ),
    ] = None,
    tempos: Annotated[
        bool,
        typer.Option(
            "--tempos", help="Each action slow and fast, as two classes that only their tempo tells apart."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Rendering processes.")] = processors(),
) -> None:
    """Render labelled synthetic clips of moving figures: to try out, or to pre-train on where no videos can be had.

    Examples:
    - `peakzoom data render synthetic`
    - `peakzoom data render long --untrimmed 60 --train-clips 24 --test-clips 8`
    - `peakzoom data render synthetic --train-clips 12000 --test-clips 600 --frames 24 --fps 10 --difficulty 0.4
      --performers 200 --backgrounds 200 --test-share 0.1`
    """
    from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
    from peakzoom.data.synthetic.people import ACTIONS, PACED
    from peakzoom.data.synthetic.untrimmed import render_untrimmed

    count = wanted.train_clips + wanted.test_clips
    spec = DatasetSpec(**vars(wanted), classes=tuple(PACED if tempos else ACTIONS))
    with progress_bar(f"rendering {count} {'videos' if untrimmed else 'clips'}") as progress:
        if untrimmed:
            folder = render_untrimmed(out, spec, untrimmed, workers, progress)
        else:
            folder = render_dataset(out, spec, workers, progress)
    listed = folder / "clips.csv"
    several = " --multi-label" if wanted.together > 1 else ""
    following = f"train {listed}{several} --out RUN" if wanted.train_clips else f"evaluate RUN {listed}"
    print_result(f"List: {listed}\nNext: peakzoom {following}")


def prepare(
    name: Annotated[Literal["ucf101", "hmdb51"], typer.Argument(help="Which data set.", show_default=False)],
    root: Annotated[Path, typer.Argument(help="Folder of what was downloaded.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Also write all missing videos to this CSV.")] = None,
) -> None:
    """Unpack UCF101 or HMDB51, compare it with its official lists, and say what is missing.

    ROOT holds the archives of videos and lists as they were downloaded, packed again as zip or tar, or unpacked. What
    is not unpacked goes to ROOT/videos and ROOT/splits. Exit code 1 if the data set is not whole.

    Example:
    - `peakzoom data prepare ucf101 downloads/`
    """
    with new_file(out, "--out"):
        _prepare(name, root, out)


def _prepare(name: str, root: Path, out: Path | None) -> None:
    """Unpack a data set, and write what is missing of it to ``out``."""
    from peakzoom.data.prepare import OFFICIAL
    from peakzoom.data.prepare import prepare as look

    official = OFFICIAL[name]
    with progress_bar("unpacking files") as progress:
        prepared = look(official, root, progress)
    print_result(
        f"{official.title}: {prepared.found:,} of {official.videos:,} videos, "
        f"{prepared.classes} of {official.classes} classes"
    )
    rows = []
    for split in prepared.splits:
        parts = (f"{part:,} of {whole:,}" for part, whole in zip(split.found, split.listed, strict=True))
        rows.append((split.number, *parts))
    show_table("", ("split", "training", "test"), rows)
    print_result(
        f"videos: {prepared.videos}\nlists: {prepared.lists}\nmissing videos: {len(prepared.missing)}"
    )
    _list_some(
        [f"{path}: {_uses(uses)}" for path, uses in prepared.missing.items()], SHOWN_MISSING, OUT_LISTS
    )
    if prepared.problems:
        print_result(f"other problems: {len(prepared.problems)}")
    _list_some([f"{problem.path}: {problem.reason}" for problem in prepared.problems], SHOWN)
    if out is not None:
        header = ["path", *(f"split{split.number}" for split in prepared.splits)]
        write_csv(
            out, header, ((path, *(use or "" for use in uses)) for path, uses in prepared.missing.items())
        )
    check_data, train = prepared.commands
    print_result(f"Next: {check_data}\n      {train}")
    if not prepared.complete:
        raise typer.Exit(1)


def _uses(uses: tuple[str | None, ...]) -> str:
    """Such as "training in split 1, test in split 2"."""
    words = {"train": "training", "test": "test"}
    used = [f"{words[use]} in split {number}" for number, use in enumerate(uses, 1) if use]
    return ", ".join(used) or "used by no split"
