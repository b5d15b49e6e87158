"""Whether a published dataset is what it says: every row looked at, every picture decoded, every number counted again."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from hf_galaxy.data.pictures import open_picture, to_rgb
from hf_galaxy.data.schema import SPLITS
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.data.vote_matrix import matrix_of
from hf_galaxy.decision_tree import DecisionTree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress
from hf_galaxy.publishing.counts import Statistics
from hf_galaxy.publishing.dataset_card import table_row
from hf_galaxy.publishing.duplicates import (
    SAME_GALAXY_ARCSEC,
    fine_structure,
    groups_of_pairs,
    groups_on_the_sky,
    pictures_alike,
)

SMALL = 32  # pixels: too few to see a galaxy's shape in
EXAMPLES = 3  # galaxies that are named with a finding


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: "ok", "note" (worth knowing), "problem" (the dataset is not what it should be).
        check: its name.
        text: what was found, with numbers.
    """

    level: Literal["ok", "note", "problem"]
    check: str
    text: str


def check_dataset(
    splits: dict[str, StreamedRows],
    stated: dict[str, int],
    counted: dict | None,
    card: str | None,
    tolerance: float,
    threads: int,
) -> list[Finding]:
    """Go through a dataset once.

    Args:
        splits: of one configuration.
        stated: split -> galaxies, as the card's header says; empty if it does not.
        counted: the dataset's own statistics.json; None if it has none.
        card: its card, whose tables are compared with what is found; None: it has none of ours.
        tolerance: share of the galaxies asked a question in which it may have another number of votes than the answers it
            is asked after, before that is a problem.
        threads: that decode pictures.
    """
    findings = [*_schema(splits)]
    if any(finding.level == "problem" for finding in findings):
        return [finding for finding in findings if finding.level != "ok"]
    features = next(iter(splits.values())).features
    tree = _tree(list(features))
    numbers = {
        column for column, feature in features.items() if getattr(feature, "dtype", "") in ("float32", "float64")
    }
    counts = Statistics(features, tree, [column for column in (counted or {}).get("values", {}) if column in numbers])
    look = _Look(features, tree)
    total = sum(map(len, splits.values()))
    with ThreadPoolExecutor(threads) as pool, progress(total=total, desc="checking", unit=" galaxies") as show:
        for split, rows in splits.items():
            for table in rows.batches():
                look.at(split, table, pool.map)
                counts.add(split, table)
                show.update(table.num_rows)
    statistics = counts.to_dict()
    findings += [
        *look.pictures(statistics),
        *look.ids(),
        *look.positions((counted or {}).get("arcsec", SAME_GALAXY_ARCSEC)),
        *look.same_pictures(),
        *look.columns(),
    ]
    findings += _votes(statistics, tree, tolerance, total)
    findings += _stated(statistics, stated, counted)
    findings += _tables(statistics, tree, card)
    return findings


def _tree(columns):
    try:
        return tree_of_columns(columns)
    except BadInput:
        return None


def _schema(splits) -> Iterator[Finding]:
    for split, rows in splits.items():
        expected = rows.features.arrow_schema
        for file, schema in rows.schemas().items():
            where = f"split {split}, {file.rsplit('/', 1)[-1]}"
            if missing := [name for name in expected.names if name not in schema.names]:
                yield Finding("problem", "schema", f"{where}: has no column {_some(missing)}")
            held = {name: schema.field(name).type for name in expected.names if name in schema.names}
            if other := [f"{name} is {t}" for name, t in held.items() if t != expected.field(name).type]:
                wanted = expected.field(other[0].split(" is ")[0]).type
                yield Finding(
                    "problem", "schema", f"{where}: {_some(other)}, where the card or the first file says {wanted}"
                )
        if missing := {"id_str", "image"} - set(rows.features):
            yield Finding("problem", "schema", f"split {split} has no column {', '.join(sorted(missing))}")
        elif not isinstance(rows.features["image"], datasets.Image):
            yield Finding(
                "problem", "schema", f"split {split}: column image holds {rows.features['image']}, no pictures"
            )
    first = next(iter(splits.values())).features
    if different := [split for split, rows in splits.items() if rows.features != first]:
        yield Finding(
            "problem", "schema", f"the columns of split {', '.join(different)} are others than those of the first"
        )
    tree = _tree(list(first))
    typed = {str(first[c].dtype) for c in tree.columns} if tree else set()
    if typed - {"int32"}:
        yield Finding("note", "schema", f"votes are stored as {', '.join(sorted(typed))}; int32 is enough and expected")
    labels = [c for c, f in first.items() if isinstance(f, datasets.ClassLabel)]
    held = [f"{len(tree.questions)} questions of {', '.join(tree.campaigns)}"] if tree else []
    held += [f"class label {c}" for c in labels]
    yield Finding("ok", "schema", f"{len(first)} columns: id_str, image" + "".join(f", {what}" for what in held))
    if missing := [split for split in SPLITS if split not in splits]:
        yield Finding("note", "splits", f"no split {', '.join(missing)}; there are {', '.join(splits)}")


class _Look:
    """What is gathered of each row while the dataset goes by."""

    def __init__(self, features: datasets.Features, tree: DecisionTree | None):
        self.features, self.tree = features, tree
        self.undecodable, self.small, self.flat = [], [], []
        self.of_id, self.of_bytes = defaultdict(list), defaultdict(list)
        self.structures, self.structured = [], []  # of each picture that could be decoded, and its row
        self.split, self.names, self.sky = [], [], []
        self.column_problems = Counter()

    def at(self, split: str, table: pa.Table, mapped: Callable) -> None:
        """Look at some rows."""
        names = [name or "" for name in table["id_str"].to_pylist()]
        contents = table["image"].combine_chunks().field("bytes").to_pylist()
        seen = list(mapped(_seen, contents))
        for name, content, picture in zip(names, contents, seen, strict=True):
            row = len(self.names)
            self.split.append(split)
            self.names.append(name)
            self.of_id[name].append(row)
            if isinstance(picture, str):
                self.undecodable.append(f"{name} ({picture})")
                continue
            shorter, structure = picture
            self.of_bytes[hash(content)].append(row)
            self.structures.append(structure)
            self.structured.append(row)
            if not structure.any():
                self.flat.append(name)
            if shorter < SMALL:
                self.small.append(name)
        if {"ra", "dec"} <= set(self.features):
            self.sky.append(np.stack([table[c].cast(pa.float64()).to_numpy() for c in ("ra", "dec")], axis=1))
        self._compare_columns(table)

    def _compare_columns(self, table):
        """Votes that are no numbers of votes, and the derived columns of Galaxy Zoo Evo's layout beside them."""
        for question in self.tree.questions if self.tree else ():
            wrong = (matrix_of(table, question.columns) < 0).any(axis=1)  # as training judges, which refuses them
            votes = np.stack([table[c].cast(pa.float64()).to_numpy() for c in question.columns], axis=1)
            if gaps := int(np.isnan(votes).any(axis=1).sum()):
                self.column_problems["note", "votes", f"{question.name} has null or NaN instead of 0"] += gaps
            votes = np.nan_to_num(votes)
            if wrong.any():
                what = f"{question.name} has numbers that are no votes"
                self.column_problems["problem", "votes", what] += int(wrong.sum())
            total = votes.sum(axis=1)
            if (stated := f"{question.name}_total-votes") in self.features:
                stated_total = np.nan_to_num(table[stated].cast(pa.float64()).to_numpy())
                if wrong := int((stated_total != total).sum()):
                    self.column_problems["problem", "totals", f"{stated} is not the sum of its answers"] += wrong
            for a, column in enumerate(question.columns):
                if f"{column}_fraction" in self.features:
                    fraction = table[f"{column}_fraction"].cast(pa.float64()).to_numpy()
                    expected = np.divide(votes[:, a], total, out=np.zeros_like(total), where=total > 0)
                    # Votes that were made of fractions are whole: as near to them as that allows.
                    off = np.abs(np.nan_to_num(fraction) - expected) * np.isfinite(fraction) * (total > 0)
                    if wrong := int((off > 1 / np.maximum(total, 1) + 1e-3).sum()):
                        self.column_problems["problem", "fractions", "fractions are not votes / total"] += wrong
                    elif rounded := int((off > 1e-3).sum()):
                        self.column_problems["note", "fractions", "votes are fractions rounded to whole votes"] += (
                            rounded
                        )
                    if gaps := int((~np.isfinite(fraction)).sum()):
                        what = "fractions are NaN or null here and there; mask by the votes"
                        self.column_problems["note", "fractions", what] += gaps

    def columns(self) -> Iterator[Finding]:
        """Findings on vote columns."""
        for (level, check, what), n in self.column_problems.items():
            yield Finding(level, check, f"{what} ({n:,} times)")

    def pictures(self, statistics: dict) -> Iterator[Finding]:
        """Findings on single pictures."""
        n = len(self.undecodable)
        if n:
            yield Finding("problem", "pictures", f"{n:,} cannot be decoded: {_some(self.undecodable)}")
        sizes = statistics["pictures"]["sizes"]
        most = ", ".join(f"{count:,} {size}" for size, count in list(sizes.items())[:EXAMPLES])
        more = f" and {len(sizes) - EXAMPLES} further kinds" if len(sizes) > EXAMPLES else ""
        yield Finding(
            "note" if n else "ok", "pictures", f"{len(self.names) - n:,} decoded to their last pixel: {most}{more}"
        )
        if self.small:
            yield Finding("note", "pictures", f"{len(self.small):,} are smaller than {SMALL} px: {_some(self.small)}")
        if self.flat:
            yield Finding(
                "note", "pictures", f"{len(self.flat):,} show nothing, all pixels are equal: {_some(self.flat)}"
            )

    def ids(self) -> Iterator[Finding]:
        """Galaxies that stand in the dataset twice by name."""
        if empty := len(self.of_id.get("", [])):
            yield Finding("problem", "ids", f"{empty:,} galaxies have no id_str")
        yield from self._twice("ids", "have the same id_str", [r for name, r in self.of_id.items() if name], "problem")

    def positions(self, arcsec: float) -> Iterator[Finding]:
        """Galaxies that stand in the dataset twice by their place in the sky."""
        if not self.sky:
            return
        groups = _members(groups_on_the_sky(np.concatenate(self.sky), arcsec))
        yield from self._twice("positions", f"are within {arcsec:g} arcsec of another", groups, "note")

    def same_pictures(self) -> Iterator[Finding]:
        """Galaxies that stand in the dataset twice by their pictures."""
        yield from self._twice("files", "have the same picture file", self.of_bytes.values(), "note")
        pairs = pictures_alike(np.stack(self.structures)) if self.structures else np.empty((0, 2), int)
        groups = _members(groups_of_pairs(pairs, len(self.structures)))
        alike = [[self.structured[i] for i in group] for group in groups]
        yield from self._twice("looks", "have the same picture, perhaps encoded or scaled otherwise", alike, "note")

    def _twice(self, check, what, groups, within) -> Iterator[Finding]:
        """Leakage between splits is a problem; what is twice within a split, `within`."""
        groups = [rows for rows in groups if len(rows) > 1]
        leaking = [rows for rows in groups if len({self.split[row] for row in rows}) > 1]
        inside = [rows for rows in groups if len({self.split[row] for row in rows}) == 1]
        for level, found, where in (("problem", leaking, "in different splits"), (within, inside, "in one split")):
            if found:
                pairs = [" = ".join(f"{self.names[r]} ({self.split[r]})" for r in rows[:EXAMPLES]) for rows in found]
                yield Finding(level, check, f"{sum(map(len, found)):,} galaxies {where} {what}: {_some(pairs)}")
        if not groups:
            yield Finding("ok", check, f"no two galaxies {what}")


def _members(group_of_row):
    """The rows of each group."""
    groups = defaultdict(list)
    for row, group in enumerate(group_of_row.tolist()):
        groups[group].append(row)
    return groups.values()


def _seen(content: bytes | None) -> tuple[int, np.ndarray] | str:
    """(shorter side, fine structure) of an encoded picture, or why it has none."""
    try:
        picture = to_rgb(open_picture(content or b""))
    except Image.UnidentifiedImageError:
        return "is no picture" if content else "is empty"
    except Exception as error:  # decoders raise many kinds
        return " ".join(str(error).split()) or type(error).__name__
    return min(picture.size), fine_structure(picture)


def _votes(statistics, tree, tolerance, total) -> Iterator[Finding]:
    if not tree:
        return
    broken = statistics["inconsistent"]["questions"]
    for question, n in sorted(broken.items(), key=lambda item: -item[1]):
        asked = max(n, statistics["questions"][question]["galaxies_asked"])
        level = "problem" if n > tolerance * asked else "note"
        share = f"{n:,} of the {asked:,} galaxies asked ({n / asked:.2%})"
        yield Finding(level, "tree", f"{question} has other votes than the answers it is asked after in {share}")
    if not broken:
        yield Finding(
            "ok", "tree", "in every galaxy each question has exactly the votes of the answers it is asked after"
        )
    yield Finding("ok", "votes", f"{sum(statistics['votes'].values()):,} on {total:,} galaxies")


def _stated(statistics, stated, counted) -> Iterator[Finding]:
    found = statistics["galaxies"]
    if stated and stated != found:
        yield Finding("problem", "card", f"says {stated} galaxies, but there are {found}")
    elif stated:
        yield Finding(
            "ok", "card", f"its numbers of galaxies are right: {', '.join(f'{n:,} {s}' for s, n in found.items())}"
        )
    else:
        yield Finding("note", "card", "does not say how many galaxies each split has")
    if counted is not None:
        different = [name for name in statistics if statistics[name] != counted.get(name)]
        if different:
            yield Finding("problem", "statistics", f"statistics.json has other {', '.join(different)} than the data")
        else:
            yield Finding("ok", "statistics", "statistics.json agrees with the data")


def _tables(statistics, tree, card) -> Iterator[Finding]:
    """Whether the tables of the card hold what was counted."""
    if card is None:
        return
    wrong = [q.name for q in (tree.questions if tree else ()) if table_row(q, statistics) not in card]
    for label, counts in statistics["classes"].items():
        wrong += [f"{label} {name}" for name, n in counts.items() if f"| {name} | {sum(n.values()):,} |" not in card]
    if wrong:
        yield Finding("problem", "tables", f"the card's table has other numbers for {_some(wrong)}")
    else:
        yield Finding("ok", "tables", "the card's tables agree with the data")


def _some(names):
    more = f" and {len(names) - EXAMPLES:,} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more
