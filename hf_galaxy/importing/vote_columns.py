"""The columns of somebody's table that hold votes, by their names: those of a decision tree, perhaps written in another way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hf_galaxy.decision_tree import DecisionTree, available_trees, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.guess import plain

ENDINGS = ("count", "counts", "votes")


@dataclass(frozen=True)
class VoteColumns:
    """The votes in a table.

    Attributes:
        tree: their decision tree; None: there are none, or they may be those of several campaigns.
        columns: column of the tree -> column of the table.
        campaigns: the campaigns that they may be of, where --tree has to choose.
    """

    tree: DecisionTree | None = None
    columns: dict[str, str] = field(default_factory=dict)
    campaigns: tuple[str, ...] = ()


def votes_among(whole: Collection[str], chosen: Sequence[str] | None) -> VoteColumns:
    """The votes among columns.

    Args:
        whole: the columns of whole numbers.
        chosen: campaigns of --tree; None: all are possible.
    """
    with suppress(BadInput):  # as published datasets name them, of several campaigns, too; else by other spellings
        tree = tree_of_columns(list(whole))
        return VoteColumns(tree, {column: column for column in tree.columns})
    trees = [load_tree(name) for name in chosen or available_trees()]
    written = _by_plain_name(whole)
    for with_campaign in (True, False):
        held = [each for tree in trees if len(tree.campaigns) == 1 and (each := _held(tree, written, with_campaign))]
        if len(held) == 1:
            return held[0]
        if held:
            return VoteColumns(campaigns=tuple(sorted(each.tree.name for each in held if each.tree)))
    return VoteColumns()


def _by_plain_name(columns: Collection[str]) -> dict[str, str]:
    """The columns by their plain names, also without the ending that says that they hold counts, which then goes first."""
    written = {plain(column): column for column in columns}
    for column in columns:
        name = plain(column)
        for ending in ENDINGS:
            if name.endswith(ending):
                written[name.removesuffix(ending)] = column
    return written


def _held(tree: DecisionTree, written: dict[str, str], with_campaign: bool) -> VoteColumns | None:
    """The part of a tree whose votes columns hold; None if that is nothing.

    Args:
        with_campaign: the columns have the suffix of the campaign, as in smooth-or-featured-gz2_smooth.
    """
    columns = {}
    for question in tree.questions:
        name = question.name if with_campaign else question.name.rpartition("-")[0]
        for ours, answer in zip(question.columns, question.answers, strict=True):
            if name and (theirs := written.get(plain(f"{name}_{answer}"))):
                columns[ours] = theirs
    held = tree.held_by(columns)
    return VoteColumns(held, {ours: columns[ours] for ours in held.columns}) if held else None
