"""A copy answers like the `datasets.Dataset` that the datasets library makes of it, and little of it is in memory."""

import ctypes
import gc
import pickle
from pathlib import Path

import datasets
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_galaxy.data.copied import CopiedRows, open_copy
from hf_galaxy.data.streaming import open_stream
from hf_galaxy.data.vote_matrix import matrix_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import writer as publish
from tests.galaxies import Rows, published


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """400 galaxies."""
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "ROWS_PER_GROUP", 50)
        published(Rows(400), folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """What load_dataset gives, as Arrow tables."""
    return {split: rows.with_format("arrow") for split, rows in datasets.load_dataset(str(folder)).items()}


@pytest.fixture
def copied(folder):
    """Its train split: 279 galaxies in 6 record batches."""
    return open_copy(str(folder))["train"]


def same(table, other):
    assert table.column_names == other.column_names
    assert table.to_pylist() == other.to_pylist()


def test_splits_rows_and_schema_are_those_of_load_dataset(folder, loaded):
    opened = open_copy(str(folder))
    assert list(opened) == list(loaded)
    for split, rows in opened.items():
        assert len(rows) == len(loaded[split])
        assert rows.features == loaded[split].features
        assert rows.column_names == loaded[split].column_names
        same(rows[:], loaded[split][:])
    assert len(opened["train"].blocks) == 6


def test_any_rows_and_columns_can_be_asked_for_in_any_order(copied, loaded):
    for indices in (
        [0],
        [278],
        [99, 100, 101],
        [200, 3, 200, 9, 8],
        np.random.default_rng(0).permutation(279).tolist(),
    ):
        same(copied[indices], loaded["train"][indices])
    for where in (slice(50, 275), slice(5, 250, 7), slice(100, 200)):
        same(copied[where], loaded["train"][where])
    some, fewer = np.arange(3, 270, 4), np.array([0, 1, 17, 40])
    chosen, expected = copied.select(some), loaded["train"].select(some)
    assert len(chosen) == len(some)
    same(chosen[:], expected[:])
    same(chosen.select(fewer)[[3, 0]], expected.select(fewer)[[3, 0]])
    columns = chosen.select_columns(["kind", "id_str"]).with_format("arrow")
    assert columns.features == expected.select_columns(["kind", "id_str"]).features
    same(columns[10:60], expected.select_columns(["kind", "id_str"])[10:60])
    assert len(copied) == 279, "the rows themselves are as they were"
    same(copied.select(np.arange(0))[:], loaded["train"].select([])[:])


@pytest.mark.parametrize("wide", [0, 100])
@pytest.mark.parametrize("streaming", [False, True])
def test_votes_come_together_whatever_they_are_stored_as(tmp_path, streaming, wide):
    """Plain integers are gathered where they lie in the file; pyarrow reads what else there is."""
    rng, names = np.random.default_rng(0), ("spiral", "smooth", "gap", "share", "never")
    numbers = rng.integers(0, 50, (250, 5)).astype(float)
    numbers[70:90:7, 2], numbers[::5, 3], numbers[:, 4] = np.nan, np.nan, np.nan  # gaps in one row group only
    integers = pa.array(numbers[:, 2], pa.int32(), mask=np.isnan(numbers[:, 2]))
    kinds = [pa.array(numbers[:, i], pa.int32()) for i in (0, 1)] + [integers, pa.array(numbers[:, 3], pa.float32())]
    columns = dict(zip(names, [*kinds, pa.nulls(250)], strict=True)) | {"id_str": [f"galaxy-{i}" for i in range(250)]}
    columns |= {f"other{i}": numbers[:, 0] for i in range(wide)}
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), tmp_path / f"data/{split}.parquet", row_group_size=60)
    rows = (open_stream if streaming else open_copy)(str(tmp_path))["train"]
    for chosen in (names[:2], names[1::-1], names[:3], names[:4], names):
        expected = np.nan_to_num(numbers)[:, [names.index(name) for name in chosen]]
        for others in ([], ["id_str"]):
            part = rows.select_columns(others, votes=chosen)
            for indices in ([249, 0, 60, 59, 0], slice(0, 250), slice(30, 130), slice(5, 200, 3), []):
                table = part[indices]
                np.testing.assert_array_equal(matrix_of(table, chosen), expected[indices])
                assert not others or table["id_str"].to_pylist() == np.array(columns["id_str"])[indices].tolist()
            fewer = part.select(np.array([3, 100, 240]))
            np.testing.assert_array_equal(matrix_of(fewer[[2, 0]], chosen), expected[[240, 3]])


def test_a_copy_in_several_files(folder, loaded, tmp_path):
    builder = datasets.load_dataset_builder(str(folder), cache_dir=tmp_path)
    builder.download_and_prepare(max_shard_size="200KB")
    files = sorted(str(file) for file in tmp_path.rglob("*-train-*-of-*.arrow"))
    assert len(files) > 1
    rows = CopiedRows(files, builder.info.features)
    same(rows[[278, 0, 150, 150]], loaded["train"][[278, 0, 150, 150]])
    same(rows[:], loaded["train"][:])


def test_rows_that_have_been_used_can_be_pickled(copied, loaded):
    same(copied[[1, 100]], loaded["train"][[1, 100]])
    content = pickle.dumps(copied)
    assert len(content) < 20_000, "no rows are packed"
    same(pickle.loads(content)[[1, 278]], loaded["train"][[1, 278]])


def anonymous():
    """Bytes of memory of this process that are not of files, nor free again (or what comes next would not show)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (s for s in Path("/proc/self/smaps_rollup").read_text().splitlines() if s.startswith("Anonymous"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not psutil.LINUX, reason="reads /proc")
def test_memory_holds_nothing_for_each_column_of_each_record_batch(tmp_path):
    names = [f"votes_{i}" for i in range(300)]
    batch = pa.record_batch([np.arange(2, dtype=np.int32)] * 300, names=names)
    with pa.OSFile(str(tmp_path / "train.arrow"), "w") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        for _ in range(600):
            writer.write_batch(batch)
    before = anonymous()
    rows = CopiedRows(
        [str(tmp_path / "train.arrow")], datasets.Features({name: datasets.Value("int32") for name in names})
    )
    assert len(rows[[3, 1199, 500]]) == 3
    assert len(rows.select_columns(names[:200])) == 1200
    lazily = anonymous() - before
    table = datasets.Dataset.from_file(str(tmp_path / "train.arrow"))
    assert lazily < 10e6 < anonymous() - before
    assert len(table) == len(rows)


def test_what_cannot_be_copied_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"no Parquet at all")
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(BadInput, match=f"--dataset {name}: cannot be loaded"):
            open_copy(name)
