"""Videos that a training sets aside, to validate on and to test on: the options, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from peakzoom.cli.inputs import names_of
from peakzoom.cli.options import ValFractionOpt, data_option
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet


@dataclass(frozen=True)
class HeldOutOptions:
    """Which videos are set aside."""

    val_fraction: ValFractionOpt = None
    test_groups: Annotated[str | None, data_option(help="Groups to set aside for testing, as 4,8,9.")] = None
    test_fraction: Annotated[
        float | None,
        data_option(
            min=0.0,
            max=0.9,
            help="Share of the videos to set aside for testing, whole groups where groups are known; 0: none.",
            show_default="0.2 where the data have no splits; 0 where a class has fewer than 5",
        ),
    ] = None

    def from_videos(self, videos: VideoSet, run: Path, resume: bool) -> VideoSet:
        """The videos, some groups or a share of them set aside for testing if the data do not say which.

        A run that was begun without test videos by default goes on so.
        """
        from peakzoom.data.splits import hold_out_groups, hold_out_share

        groups, share = self.test_groups, self.test_fraction
        if groups is not None and share is not None:
            raise UserError("--test-groups and --test-fraction exclude one another: give one of them")
        if groups is not None:
            return replace(videos, entries=hold_out_groups(videos.entries, names_of(groups)))
        if all(entry.split is None for entry in videos.entries):
            wanted = 0.0 if share is None and resume and _tests_nothing(run) else share
            return replace(videos, entries=hold_out_share(videos.entries, wanted))
        if share is not None:
            raise UserError(
                f"--test-fraction is {share:g}, but {videos.name} says which videos are for what: leave the option out"
            )
        return videos


def next_step(run: Path, videos: VideoSet) -> str:
    """What a user does with a run once it is trained on the videos."""
    tested = any(entry.split == "test" for entry in videos.entries)
    return f"Run: {run}\nNext: peakzoom evaluate {run}" + ("" if tested else " TEST_DATA")


def _tests_nothing(run: Path) -> bool:
    """Whether a run was begun without test videos, as runs on a plain folder were once."""
    from peakzoom.utils.durable import read_csv

    return (run / "videos.csv").exists() and all(
        row["split"] != "test" for row in read_csv(run / "videos.csv")
    )
