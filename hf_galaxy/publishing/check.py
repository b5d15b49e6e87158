"""Check of a published dataset: every row is read, every picture decoded, every number of the card counted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.pictures import open_picture, to_rgb
from hf_galaxy.data.schema import SPLITS, contents_of, has_fluxes
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.data.vote_matrix import matrix_of
from hf_galaxy.decision_tree import DecisionTree, Question, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.counts import Statistics
from hf_galaxy.importing.duplicates import (
    SAME_GALAXY_ARCSEC,
    FineStructures,
    fine_structure,
    groups_on_the_sky,
    pictures_alike,
)
from hf_galaxy.importing.first_of import EXAMPLES, Examples, first_of
from hf_galaxy.importing.groups import Groups, hashes_of
from hf_galaxy.progress import progress
from hf_galaxy.publishing.check_fluxes import FluxChecks, Level
from hf_galaxy.publishing.dataset_card import table_row

MIN_PIXELS = 32  # with fewer the shape of a galaxy cannot be seen
ROWS_AT_ONCE = 500  # whose pictures are in memory


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok", "note" (worth knowing) or "problem" (the dataset is not as it should be).
        check: name of the check.
        text: the result, with numbers.
    """

    level: Level
    check: str
    text: str


def check_dataset(
    splits: dict[str, StreamedRows],
    stated: dict[str, int],
    own_statistics: dict[str, Any] | None,
    card: str | None,
    tolerance: float,
    threads: int,
) -> list[Finding]:
    """Read all rows of a dataset once.

    Args:
        splits: of one configuration.
        stated: split -> galaxies by the card's header; empty if it has no such numbers.
        own_statistics: the dataset's statistics.json; None if there is none.
        card: its card, whose tables are compared with the counts; None: it has no card of ours.
        tolerance: a question with other votes than the answers that lead to it is a problem if that is so in a larger share
            of the galaxies asked.
        threads: number of threads that decode pictures.
    """
    findings = [*_schema(splits)]
    if any(finding.level == "problem" for finding in findings):
        return [finding for finding in findings if finding.level != "ok"]
    features = next(iter(splits.values())).features
    tree = _tree(list(features))
    own = own_statistics or {}
    floats = {column for column, feature in features.items() if getattr(feature, "dtype", "").startswith("float")}
    counts = Statistics(features, tree, [column for column in own.get("values", {}) if column in floats])
    total = sum(map(len, splits.values()))
    with FineStructures() as structures:
        rows_read = _RowChecks(splits, features, tree, structures)
        with ThreadPoolExecutor(threads) as pool, progress(total=total, desc="checking", unit=" galaxies") as show:
            for split, rows in splits.items():
                for table in rows.batches(ROWS_AT_ONCE):
                    rows_read.add(split, table, pool.map)
                    counts.add(split, table)
                    show.update(table.num_rows)
        findings += rows_read.findings(own.get("arcsec", SAME_GALAXY_ARCSEC), counts.to_dict())
    statistics = counts.to_dict()
    return [
        *findings,
        *_votes(statistics, tree, tolerance, total),
        *_numbers_of_galaxies(statistics, stated),
        *_statistics(statistics, own_statistics),
        *_tables(statistics, tree, card),
    ]


def _tree(columns: list[str]) -> DecisionTree | None:
    try:
        return tree_of_columns(columns)
    except BadInput:
        return None


def _schema(splits: dict[str, StreamedRows]) -> Iterator[Finding]:
    for split, rows in splits.items():
        yield from _files(split, rows)
        if missing := {"id_str", "image"} - set(rows.features):
            yield Finding("problem", "schema", f"split {split} has no column {', '.join(sorted(missing))}")
        elif not isinstance(rows.features["image"], datasets.Image):
            text = f"split {split}: column image holds {rows.features['image']}, not pictures"
            yield Finding("problem", "schema", text)
    first = next(iter(splits.values())).features
    if different := [split for split, rows in splits.items() if rows.features != first]:
        text = f"split {', '.join(different)} has other columns than the first split"
        yield Finding("problem", "schema", text)
    tree = _tree(list(first))
    types = {str(first[c].dtype) for c in tree.columns} if tree else set()
    if types - {"int32"}:
        text = f"votes are stored as {', '.join(sorted(types))}; int32 is sufficient and expected"
        yield Finding("note", "schema", text)
    contents = ["id_str", "image", *([FLUX] if has_fluxes(first) else [])]
    contents += [f"{len(tree.questions)} questions of {', '.join(tree.campaigns)}"] if tree else []
    contents += [f"class label {c}" for c, f in first.items() if isinstance(f, datasets.ClassLabel)]
    yield Finding("ok", "schema", f"{len(first)} columns: {', '.join(contents)}")
    if absent := [split for split in SPLITS if split not in splits]:
        yield Finding("note", "splits", f"no split {', '.join(absent)}; there are {', '.join(splits)}")


def _files(split: str, rows: StreamedRows) -> Iterator[Finding]:
    """Files with other columns or types than the dataset."""
    expected = rows.features.arrow_schema
    for file, schema in rows.schemas().items():
        where = f"split {split}, {file.rsplit('/', 1)[-1]}"
        if missing := [name for name in expected.names if name not in schema.names]:
            yield Finding("problem", "schema", f"{where}: has no column {first_of(missing)}")
        types = {name: schema.field(name).type for name in expected.names if name in schema.names}
        if other := [name for name, t in types.items() if t != expected.field(name).type]:
            texts = first_of([f"{name} is {types[name]}" for name in other])
            wanted = expected.field(other[0]).type
            yield Finding("problem", "schema", f"{where}: {texts}, but the card or the first file has {wanted}")


class _RowChecks:
    """Collects what the checks need of each row."""

    def __init__(
        self,
        splits: dict[str, StreamedRows],
        features: datasets.Features,
        tree: DecisionTree | None,
        structures: FineStructures,
    ) -> None:
        self.splits, self.features, self.tree = splits, features, tree
        self.starts = np.cumsum([0, *map(len, splits.values())])  # the first row of each split
        self.rows = self.empty_names = 0
        self.names: list[np.ndarray] = []  # hashes of them
        self.files: list[np.ndarray] = []  # hashes of each picture that could be decoded
        self.decoded: list[np.ndarray] = []  # their rows
        self.structures = structures
        self.undecodable, self.small, self.flat = Examples(), Examples(), Examples()
        self.sky: list[np.ndarray] = []
        self.column_findings: Counter[tuple[Level, str, str]] = Counter()
        self.fluxes = FluxChecks() if has_fluxes(features) else None

    def add(self, split: str, table: pa.Table, parallel_map: Callable[..., Iterable[Any]]) -> None:
        """Read some rows.

        Args:
            parallel_map: applies a function to each picture.
        """
        ids = table["id_str"].fill_null("").combine_chunks()
        names = ids.to_pylist()
        first, self.rows = self.rows, self.rows + len(names)
        self.names.append(hashes_of(names))
        self.empty_names += names.count("")
        hashes, rows = [], []
        contents = contents_of(table["image"])
        for i, (name, picture) in enumerate(zip(names, parallel_map(_decoded, contents), strict=True)):
            if isinstance(picture, str):
                self.undecodable.add(f"{name} ({picture})")
                continue
            shorter, structure = picture
            hashes.append(hash(contents[i]))
            self.structures.append(structure)
            rows.append(first + i)
            if not structure.any():
                self.flat.add(name)
            if shorter < MIN_PIXELS:
                self.small.add(name)
        self.files.append(np.array(hashes, np.int64))
        self.decoded.append(np.array(rows, np.int32))
        if self.fluxes is not None:
            self.fluxes.add(names, contents_of(table[FLUX]))
        if {"ra", "dec"} <= set(self.features):
            self.sky.append(np.stack([_float64(table, c) for c in ("ra", "dec")], axis=1))
        for question in self.tree.questions if self.tree else ():
            for level, check, text, rows in _question_findings(question, table, self.features):
                self.column_findings[level, check, text] += rows

    def findings(self, arcsec: float, statistics: dict[str, Any]) -> list[Finding]:
        """All of them.

        Args:
            arcsec: galaxies closer than this in the sky are the same.
            statistics: the counts of the rows.
        """
        of_pictures = [*self.pictures(statistics), *self.ids(), *self.positions(arcsec), *self.same_pictures()]
        of_fluxes = self.fluxes.findings(statistics["fluxes"]) if self.fluxes is not None else ()
        findings = (Finding(level, "fluxes", text) for level, text in of_fluxes)
        return [*of_pictures, *findings, *self.columns()]

    def columns(self) -> Iterator[Finding]:
        """Findings on columns of votes and fractions."""
        for (level, check, text), n in self.column_findings.items():
            yield Finding(level, check, f"{text} ({n:,} times)")

    def pictures(self, statistics: dict[str, Any]) -> Iterator[Finding]:
        """Findings on single pictures."""
        n = self.undecodable.number
        if n:
            yield Finding("problem", "pictures", f"{n:,} cannot be decoded: {self.undecodable}")
        sizes = statistics["pictures"]["sizes"]
        most = ", ".join(f"{count:,} {size}" for size, count in list(sizes.items())[:EXAMPLES])
        more = f" and {len(sizes) - EXAMPLES} further kinds" if len(sizes) > EXAMPLES else ""
        text = f"{self.rows - n:,} decoded to their last pixel: {most}{more}"
        yield Finding("note" if n else "ok", "pictures", text)
        if self.small.number:
            text = f"{self.small.number:,} are smaller than {MIN_PIXELS} px: {self.small}"
            yield Finding("note", "pictures", text)
        if self.flat.number:
            text = f"{self.flat.number:,} show nothing, all pixels are equal: {self.flat}"
            yield Finding("note", "pictures", text)

    def ids(self) -> Iterator[Finding]:
        """Galaxies with the same name."""
        if self.empty_names:
            yield Finding("problem", "ids", f"{self.empty_names:,} galaxies have no id_str")
        groups = Groups.of_equal(np.concatenate([np.empty(0, np.uint64), *self.names]))
        if self.empty_names:
            empty = hashes_of([""])[0]
            groups = groups.where(np.concatenate(self.names)[groups.rows[groups.starts]] != empty)
        yield from self._duplicates("ids", "have the same id_str", groups, "problem")

    def positions(self, arcsec: float) -> Iterator[Finding]:
        """Galaxies at the same position in the sky."""
        if not self.sky:
            return
        groups = groups_on_the_sky(np.concatenate(self.sky), arcsec)
        yield from self._duplicates("positions", f"are within {arcsec:g} arcsec of another", groups, "note")

    def same_pictures(self) -> Iterator[Finding]:
        """Galaxies with the same picture."""
        decoded = np.concatenate([np.empty(0, np.int32), *self.decoded])
        same_files = Groups.of_equal(np.concatenate([np.empty(0, np.int64), *self.files]))
        alike = Groups.of_pairs(pictures_alike(self.structures.all()))
        for check, text, groups in (
            ("files", "have the same picture file", same_files),
            ("looks", "have the same picture, perhaps encoded or scaled otherwise", alike),
        ):
            yield from self._duplicates(check, text, Groups(decoded[groups.rows], groups.starts), "note")

    def _described(self, row: int) -> str:
        """Name and split of a galaxy."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        split = list(self.splits)[number]
        table = self.splits[split].select_columns(["id_str"])[[row - int(self.starts[number])]]
        return f"{table['id_str'][0].as_py() or ''} ({split})"

    def _duplicates(self, check: str, text: str, groups: Groups, level: Level) -> Iterator[Finding]:
        """Duplicates in different splits are a problem, those in one split a finding of this level."""
        # Rows increase within a group, so that the first and the last tell whether there are several splits.
        ends = [groups.rows[places] for places in (groups.starts, groups.starts + groups.sizes - 1)]
        first_split, last_split = (np.searchsorted(self.starts, rows, side="right") for rows in ends)
        in_splits: tuple[tuple[Level, Groups, str], ...] = (
            ("problem", groups.where(first_split != last_split), "in different splits"),
            (level, groups.where(first_split == last_split), "in one split"),
        )
        for of_level, duplicates, where in in_splits:
            if len(duplicates):
                examples = [" = ".join(map(self._described, rows)) for rows in duplicates.first(EXAMPLES, EXAMPLES)]
                galaxies, named = len(duplicates.rows), first_of(examples, len(duplicates))
                yield Finding(of_level, check, f"{galaxies:,} galaxies {where} {text}: {named}")
        if not len(groups):
            yield Finding("ok", check, f"no two galaxies {text}")


def _question_findings(
    question: Question, table: pa.Table, features: datasets.Features
) -> Iterator[tuple[Level, str, str, int]]:
    """Wrong votes for a question, and wrong values in the columns that Galaxy Zoo Evo derives from them, in some rows."""
    votes = np.stack([_float64(table, column) for column in question.columns], axis=1)
    if rows := int(np.isnan(votes).any(axis=1).sum()):
        yield "note", "votes", f"{question.name} has null or NaN instead of 0", rows
    # By the same rule as training, which refuses such numbers.
    if rows := int((matrix_of(table, question.columns) < 0).any(axis=1).sum()):
        yield "problem", "votes", f"{question.name} has numbers that are not votes", rows
    votes = np.nan_to_num(votes)
    total = votes.sum(axis=1)
    column = f"{question.name}_total-votes"
    if column in features and (rows := int((np.nan_to_num(_float64(table, column)) != total).sum())):
        yield "problem", "totals", f"{column} is not the sum of its answers", rows
    for a, column in enumerate(question.columns):
        if f"{column}_fraction" in features:
            yield from _fraction_findings(_float64(table, f"{column}_fraction"), votes[:, a], total)


def _fraction_findings(
    fraction: np.ndarray, votes: np.ndarray, total: np.ndarray
) -> Iterator[tuple[Level, str, str, int]]:
    expected = np.divide(votes, total, out=np.zeros_like(total), where=total > 0)
    off = np.abs(np.nan_to_num(fraction) - expected) * np.isfinite(fraction) * (total > 0)
    # Votes that were made of fractions are whole: the fractions agree to one vote.
    if rows := int((off > 1 / np.maximum(total, 1) + 1e-3).sum()):
        yield "problem", "fractions", "fractions are not votes / total", rows
    elif rows := int((off > 1e-3).sum()):
        yield "note", "fractions", "votes are fractions rounded to whole votes", rows
    if rows := int((~np.isfinite(fraction)).sum()):
        yield "note", "fractions", "some fractions are NaN or null; mask by the votes", rows


def _float64(table: pa.Table, column: str) -> np.ndarray:
    return table[column].cast(pa.float64()).to_numpy()


def _decoded(content: bytes | None) -> tuple[int, np.ndarray] | str:
    """Shorter side and fine structure of an encoded picture, or why it cannot be decoded."""
    try:
        picture = to_rgb(open_picture(content or b""))
    except Image.UnidentifiedImageError:
        return "is not a picture" if content else "is empty"
    except Exception as error:  # decoders raise many kinds
        return " ".join(str(error).split()) or type(error).__name__
    return min(picture.size), fine_structure(picture)


def _votes(statistics: dict[str, Any], tree: DecisionTree | None, tolerance: float, total: int) -> Iterator[Finding]:
    if not tree:
        return
    inconsistent = statistics["inconsistent"]["questions"]
    for question, n in sorted(inconsistent.items(), key=lambda item: -item[1]):
        asked = max(n, statistics["questions"][question]["galaxies_asked"])
        share = f"{n:,} of the {asked:,} galaxies asked ({n / asked:.2%})"
        text = f"{question} has other votes than the answers that lead to it in {share}"
        yield Finding("problem" if n > tolerance * asked else "note", "tree", text)
    if not inconsistent:
        text = "in every galaxy each question has exactly the votes of the answers that lead to it"
        yield Finding("ok", "tree", text)
    yield Finding("ok", "votes", f"{sum(statistics['votes'].values()):,} on {total:,} galaxies")


def _numbers_of_galaxies(statistics: dict[str, Any], stated: dict[str, int]) -> Iterator[Finding]:
    counted = statistics["galaxies"]
    if not stated:
        yield Finding("note", "card", "does not say how many galaxies each split has")
    elif stated != counted:
        yield Finding("problem", "card", f"says {stated} galaxies, but there are {counted}")
    else:
        numbers = ", ".join(f"{n:,} {split}" for split, n in counted.items())
        yield Finding("ok", "card", f"its numbers of galaxies are right: {numbers}")


def _statistics(statistics: dict[str, Any], own: dict[str, Any] | None) -> Iterator[Finding]:
    if own is None:
        return
    if different := [name for name in statistics if statistics[name] != own.get(name)]:
        yield Finding("problem", "statistics", f"statistics.json differs from the data in {', '.join(different)}")
    else:
        yield Finding("ok", "statistics", "statistics.json agrees with the data")


def _tables(statistics: dict[str, Any], tree: DecisionTree | None, card: str | None) -> Iterator[Finding]:
    """Whether the tables of the card have the numbers of the data."""
    if card is None:
        return
    wrong = [q.name for q in (tree.questions if tree else ()) if table_row(q, statistics) not in card]
    for label, counts in statistics["classes"].items():
        wrong += [f"{label} {name}" for name, n in counts.items() if f"| {name} | {sum(n.values()):,} |" not in card]
    if wrong:
        yield Finding("problem", "tables", f"the card's table has other numbers for {first_of(wrong)}")
    else:
        yield Finding("ok", "tables", "the card's tables agree with the data")
