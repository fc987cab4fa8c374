"""What a study trains: arms, one for each row of its table, on folds of the videos."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from peakzoom.data.entries import VideoSet, ordered
from peakzoom.data.splits import hold_out_groups
from peakzoom.model.backbones import ARCHITECTURE
from peakzoom.model.config import BRANCHES, LETTERS
from peakzoom.studies.predictions import Key
from peakzoom.training.recipes import Recipe
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

ABLATION_BRANCHES = (
    BRANCHES[:1],
    BRANCHES[:2],
    (BRANCHES[0], BRANCHES[2]),
    BRANCHES[1:],
    BRANCHES,
)  # Table 4


EQUAL = ("passes", "epochs")


def passes(branches: Collection[str]) -> int:
    """How often a network of these branches runs its video network on a clip: branches that zoom need the original."""
    return 1 + len(set(branches) - set(BRANCHES[:1]))


@dataclass(frozen=True)
class Arm:
    """One row of a table: a network, and the branches that it has in stage 2 of its training.

    Attributes:
        model, width: of the network; a name that is the study's own where the network has a plan.
        branches: of stage 2.
        label: what a reader calls the row.
        equal: what the rows of a table have in common in stage 2: "epochs", the recipe's; or "passes" through the video
            network, those of the recipe's branches, so that the original alone has three times the epochs of all three.
        architecture: the network's plan as JSON, if it has one.
    """

    model: str
    branches: tuple[str, ...] = BRANCHES
    width: float = 1.0
    label: str = ""
    equal: str = "epochs"
    architecture: str = ""

    @property
    def letters(self) -> str:
        """Such as "O" or "ODC"."""
        return "".join(LETTERS[name] for name in self.branches)

    @property
    def folder(self) -> str:
        """Name of the run of stage 1, which the arms of one network share."""
        name = self.model.replace(":", "-")  # of a user's own network
        return name if self.width == 1 else f"{name}x{self.width:.4g}"

    @property
    def key(self) -> Key:
        """As in ``answers.csv``."""
        return self.model, self.width, self.letters

    @property
    def baseline(self) -> Key | None:
        """The arm to compare with: the same network with the original branch alone; None of that one."""
        return None if self.letters == "O" else (self.model, self.width, "O")

    def recipe(self, recipe: Recipe) -> Recipe:
        """A study's recipe for this arm."""
        joint = recipe.joint
        if self.equal == "passes":
            longer = passes(recipe.branches) / passes(self.branches)
            joint = replace(
                joint, epochs=max(1, round(joint.epochs * longer)), min_steps=round(joint.min_steps * longer)
            )
        model = ARCHITECTURE if self.architecture else self.model
        return replace(
            recipe,
            model=model,
            architecture=self.architecture,
            width=self.width,
            branches=self.branches,
            joint=joint,
        )

    def stage_1(self, recipe: Recipe) -> Recipe:
        """A study's recipe for stage 1, which is one run for all arms of a network: nothing in it is of stage 2."""
        return replace(self.recipe(recipe), branches=BRANCHES, joint=recipe.joint)


@dataclass(frozen=True)
class Fold:
    """One division into training and test videos."""

    name: str
    data: VideoSet


def group_folds(data: VideoSet, groups: Iterable[Sequence[str]]) -> list[Fold]:
    """One fold for each list of groups: they are its test videos, all others its training videos.

    Raises:
        UserError: a group is unknown, or stands in two folds, so that its videos would count twice.
    """
    folds: list[Fold] = []
    seen: set[str] = set()
    for names in groups:
        if twice := sorted(seen & set(names)):
            raise UserError(f"group {twice[0]!r} is in two folds; its videos would count twice")
        seen |= set(names)
        folds.append(Fold("+".join(names), replace(data, entries=hold_out_groups(data.entries, names))))
    return folds


def one_group_each(data: VideoSet) -> list[Fold]:
    """Leave one group out: as many folds as groups.

    Raises:
        UserError: a video has no group, or all have the same one.
    """
    groups = ordered(entry.group for entry in data.entries if entry.group is not None)
    if len(groups) < 2 or any(entry.group is None for entry in data.entries):
        raise UserError(
            f"{data.name} has {counted(len(groups), 'group')} and "
            f"{counted(sum(entry.group is None for entry in data.entries), 'video')} "
            "without one; leaving one group out needs two or more, and one for every video (a manifest can name it)"
        )
    return group_folds(data, [[group] for group in groups])
