"""Joined datasets keep every picture, vote and place; a campaign that a galaxy was not in has zeros; neighbours share a split."""

import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_galaxy import load_tree
from hf_galaxy.data.schema import row_features, split_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import plan
from hf_galaxy.importing.plan import Row
from hf_galaxy.publishing.combine import Combined
from tests.galaxies import Rows, jpeg_bytes, published


class Gz2(Rows):
    """Like Rows, of another campaign, with names of its own from the second galaxy on, and one further column."""

    tree = load_tree("gz2")
    features = row_features(tree, {"kind": ["a", "b"]}, {"ra": "float64", "dec": "float64", "note": "string"})

    def __init__(self, galaxies, positions=None):
        super().__init__(galaxies, positions=positions)
        self.ids = ["galaxy-0", *(f"gz2-{i}" for i in range(1, galaxies))]
        self.votes = np.random.default_rng(0).integers(1, 40, (galaxies, len(self.tree.columns)))

    def row(self, i):
        ra, dec = map(float, self.positions[i])
        return Row(
            {"id_str": self.ids[i], "image": {"bytes": jpeg_bytes(1000 + i), "path": f"{i}.jpg"}, "kind": "b",
             "ra": ra, "dec": dec, "note": f"note {i}"}
            | dict(zip(self.tree.columns, self.votes[i].tolist(), strict=True))
        )  # fmt: skip


@pytest.fixture
def parts(tmp_path):
    """Two datasets of 30 and 20 galaxies; galaxy i of both is the same place in the sky, to 10 arcsec."""
    positions = np.stack([np.arange(30) * 3.0, np.zeros(30)], axis=1)
    folders = [tmp_path / "rings", tmp_path / "gz2"]
    for folder, source in zip(
        folders, (Rows(30, positions=positions), Gz2(20, positions[:20] + 10 / 3600)), strict=True
    ):
        folder.mkdir()
        source.positions = source.positions if isinstance(source, Gz2) else positions
        published(source, folder)
    return folders


def test_a_missing_label_stays_missing(parts, tmp_path):
    for file in (parts[0] / "data").glob("*.parquet"):
        table = pq.read_table(file)
        place = table.column_names.index("kind")
        kinds = pa.array([-1] * len(table), pa.int64())
        pq.write_table(table.set_column(place, table.field(place), kinds), file)
    source, out = Combined.read(parts), tmp_path / "both"
    out.mkdir()
    published(source, out)
    rows = datasets.concatenate_datasets(list(datasets.load_dataset(str(out)).values()))
    kinds = {(row["dataset_name"], row["kind"]) for row in rows}
    assert kinds == {("rings", None), ("gz2", 1)}


@pytest.mark.parametrize(("number", "refused"), [(7.0, False), (7.5, True), (-7.0, True)])
def test_votes_stored_as_floats_are_joined_if_they_are_whole(parts, number, refused):
    features = datasets.Features(Rows.features | {"ring_no": datasets.Value("float64")})
    for file in (parts[0] / "data").glob("*.parquet"):
        table = pq.read_table(file)
        votes = pa.array([number, *table["ring_no"].to_pylist()[1:]], pa.float64())
        table = table.set_column(table.column_names.index("ring_no"), "ring_no", votes)
        pq.write_table(table.cast(features.arrow_schema), file)
    (parts[0] / "README.md").unlink()  # whose header says that votes are int32, and where the files are
    shutil.rmtree(parts[0] / "tiny")
    table = pq.read_table(parts[0] / "data/train-00000.parquet")
    name = table["id_str"][0].as_py()
    if refused:
        with pytest.raises(BadInput, match=rf"rings, id_str {name}, column ring_no: .*votes are whole numbers"):
            Combined.read(parts)
        return
    source = Combined.read(parts)
    [row] = source.batch([source.split_names.index(name)]).table.to_pylist()
    assert (row["ring_no"], type(row["ring_no"])) == (7, int)


def test_every_galaxy_keeps_what_it_had_and_has_zeros_where_it_was_not(parts, tmp_path):
    source = Combined.read(parts)
    out = tmp_path / "both"
    out.mkdir()
    *_, duplicates, _, configs = published(source, out)
    rows = datasets.concatenate_datasets(list(datasets.load_dataset(str(out)).values()))
    assert len(rows) == 50
    raw = {row["id_str"]: row for row in rows.cast_column("image", datasets.Image(decode=False))}
    assert {"rings/galaxy-0", "gz2/galaxy-0"} <= raw.keys(), "a name of both datasets"
    originals = [
        Rows(30, positions=np.stack([np.arange(30) * 3.0, np.zeros(30)], axis=1)),
        Gz2(20, source.positions[30:]),
    ]
    for original, name in zip(originals, ("rings", "gz2"), strict=True):
        for i in range(len(original.ids)):
            expected = original.row(i).columns
            row = raw.get(original.ids[i]) or raw[f"{name}/{original.ids[i]}"]
            assert row["image"]["bytes"] == expected["image"]["bytes"]
            assert [row[c] for c in original.tree.columns] == [expected[c] for c in original.tree.columns]
            assert rows.features["kind"].int2str(row["kind"]) == expected["kind"]
            others = [c for c in source.tree.columns if c not in original.tree.columns]
            assert {row[c] for c in others} == {0}
            assert (row["dataset_name"], row["note"]) == (name, expected.get("note"))
    assert set(configs) == {"default", "gz_rings", "gz2", "tiny"}
    assert sum(split.num_examples for split in configs["gz2"].splits.values()) == 20
    assert duplicates.groups == 20


def test_the_same_place_is_in_one_split(parts):
    source = Combined.read(parts)
    shards, duplicates = plan.plan(source)
    split = {row: shard.split for shard in shards for row in shard.rows}
    splits_at = {}
    for row, (ra, _) in enumerate(source.positions):
        splits_at.setdefault(round(ra), set()).add(split[row])
    assert len(splits_at) == 30
    assert all(len(splits) == 1 for splits in splits_at.values())
    assert (duplicates.groups, duplicates.rows, duplicates.dropped) == (20, 40, 0)
    assert len(set(split.values())) == 3


def test_of_duplicates_the_one_with_the_most_votes_is_kept(parts):
    source = Combined.read(parts)
    shards, duplicates = plan.plan(source, drop_duplicates=True)
    kept = sorted(source.ids[row] for shard in shards for row in shard.rows)
    gz2 = {"gz2/galaxy-0", *(f"gz2-{i}" for i in range(1, 20))}
    assert kept == sorted(gz2 | {f"galaxy-{i}" for i in range(20, 30)}), "gz2 has more votes on every galaxy of both"
    assert duplicates.dropped == 20


def test_rows_of_one_name_are_in_one_split_that_of_their_name(tmp_path):
    """Even where nobody knows their places in the sky."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        published(Rows(60), tmp_path / name)
        (tmp_path / name / "statistics.json").write_text('{"notes": ["Nobody counted these votes."], "license": "mit"}')
    source = Combined.read([tmp_path / "one", tmp_path / "other"])
    source.__dict__["positions"] = None
    shards, duplicates = plan.plan(source)
    split = {source.ids[row]: shard.split for shard in shards for row in shard.rows}
    assert len(split) == 120
    assert all(split[f"{part}/galaxy-{i}"] == split_of(f"galaxy-{i}") for part in ("one", "other") for i in range(60))
    assert (duplicates.groups, duplicates.moved) == (60, 0)
    assert "one: Nobody counted these votes." in source.notes
    assert source.license == "mit"


def test_what_cannot_be_joined_is_refused(parts, tmp_path):
    with pytest.raises(BadInput, match="is not a published dataset with votes"):
        Combined.read([parts[0], tmp_path / "nowhere"])
    other = Rows(30)
    other.features = row_features(Rows.tree, {"kind": ["b", "a"]}, {"ra": "float64", "dec": "float64"})
    (tmp_path / "other").mkdir()
    published(other, tmp_path / "other")
    with pytest.raises(BadInput, match="other: column kind has another type than in"):
        Combined.read([parts[0], tmp_path / "other"])
