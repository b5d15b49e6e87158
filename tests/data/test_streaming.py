"""A stream answers like the copied dataset, reads no more than it needs, and is shared out and resumed exactly."""

import itertools
import pickle
import shutil
import signal
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hf_galaxy.data import streaming
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.schema import contents_of
from hf_galaxy.data.streaming import StreamedRows, open_stream
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import plan, writer
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.publishing.dataset_card import Prose, write_card
from hf_galaxy.training.sequence import ProcessShard, TrainingSequence, evaluation_batches, training_batches
from hf_galaxy.training.targets.votes import Votes
from tests.galaxies import Rows, published, votes_of

GROUP, WINDOW = 10, 40  # rows of a row group, and of a window of the shuffle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """400 galaxies in several files of several row groups."""
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROWS_PER_GROUP", GROUP)
        patch.setattr(plan, "ROWS_PER_FILE", 6 * GROUP)
        published(Rows(400), folder)
    return folder


@pytest.fixture(scope="module")
def copied(folder):
    """What the datasets library makes of it, as Arrow tables."""
    return {split: rows.with_format("arrow") for split, rows in datasets.load_dataset(str(folder)).items()}


@pytest.fixture
def stream(folder):
    """Its train split: 279 galaxies in 28 row groups of 5 files."""
    return open_stream(str(folder))["train"]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW_ROWS", WINDOW)


@pytest.fixture(autouse=True)
def no_hanging():
    """A stream that waits for ever is a failure."""

    def stop(*_):
        raise TimeoutError("hangs")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def reads(monkeypatch):
    """How often each row group has been read."""
    counts, read = Counter(), StreamedRows._read

    def counted(rows, groups):
        counts.update(np.atleast_1d(groups).tolist())
        return read(rows, groups)

    monkeypatch.setattr(StreamedRows, "_read", counted)
    return counts


def same(table, other):
    assert table.column_names == other.column_names
    assert table.to_pylist() == other.to_pylist()


def test_splits_rows_and_schema_are_those_of_load_dataset(folder, copied):
    streams = open_stream(str(folder))
    assert list(streams) == list(copied)
    for split, rows in streams.items():
        assert len(rows) == len(copied[split])
        assert rows.features == copied[split].features
        assert rows.column_names == copied[split].column_names
        same(rows[:], copied[split][:])
    assert len(streams["train"].blocks) > 20
    assert len({file for file, _ in streams["train"].blocks}) == 5


def test_any_rows_can_be_asked_for_in_any_order(stream, copied):
    for indices in ([0], [278], [59, 60, 61], [200, 3, 200, 9, 10], np.random.default_rng(0).permutation(279).tolist()):
        same(stream[indices], copied["train"][indices])
    same(stream[50:75], copied["train"][50:75])
    same(stream[5:200:7], copied["train"][5:200:7])
    same(stream.with_format("arrow")[[4, 2]], copied["train"][[4, 2]])


def test_more_pictures_than_an_array_can_hold_stay_apart(stream, copied, monkeypatch):
    monkeypatch.setattr(streaming, "MAX_ARRAY", 100)
    indices = np.random.default_rng(0).permutation(279).tolist()
    same(stream[indices], copied["train"][indices])
    pictures = stream[indices]["image"]
    assert pictures.num_chunks > 100
    assert contents_of(pictures) == pictures.combine_chunks().field("bytes").to_pylist()


def test_chosen_rows_and_columns_are_those_of_load_dataset(stream, copied):
    some, fewer = np.arange(3, 270, 4), np.array([0, 1, 17, 40])
    chosen, expected = stream.select(some), copied["train"].select(some)
    assert len(chosen) == len(some)
    same(chosen[:], expected[:])
    same(chosen[[5, 1]], expected[[5, 1]])
    same(chosen.select(fewer)[:], expected.select(fewer)[:])
    columns = chosen.select_columns(["kind", "id_str"])
    assert columns.features == expected.select_columns(["kind", "id_str"]).features
    same(columns.select(fewer)[[3, 0]], expected.select_columns(["kind", "id_str"]).select(fewer)[[3, 0]])
    assert len(stream) == 279, "the stream itself is as it was"
    same(stream[[5, 1]], copied["train"][[5, 1]])


def overwrite(file, column, groups):
    """Destroy what is stored of a column, but not the footer."""
    metadata = pq.read_metadata(file)
    with open(file, "r+b") as opened:
        for g, c in itertools.product(groups, range(metadata.num_columns)):
            chunk = metadata.row_group(g).column(c)
            if chunk.path_in_schema.split(".")[0] == column:
                opened.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                opened.write(b"\xff" * chunk.total_compressed_size)


def test_what_is_not_asked_for_is_not_read(folder, copied, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    for file in (tmp_path / "copy/data").glob("train-*"):
        overwrite(file, "image", range(pq.read_metadata(file).num_row_groups))
    overwrite(tmp_path / "copy/data/train-00001.parquet", "id_str", [2])  # rows 80 to 89
    stream = open_stream(str(tmp_path / "copy"))["train"]
    votes = ["ring_yes", "ring_no", "ra"]
    same(stream.select_columns(votes)[:], copied["train"].select_columns(votes)[:])
    names, others = stream.select_columns(["id_str"]), [79, 90, *range(70), *range(90, 279)]
    same(names[others], copied["train"].select_columns(["id_str"])[others])
    for indices in ([80], [89, 0]):
        with pytest.raises(OSError):  # noqa: PT011  Parquet words it in many ways
            names[indices]
    with pytest.raises(OSError):  # noqa: PT011
        stream[[0]]


def test_configurations_with_columns_of_their_own(tmp_path):
    rows = Rows(60, campaigns=["near" if i % 3 else "far" for i in range(60)])
    shards, _ = plan.plan(rows)
    writer.write_dataset(rows, shards, tmp_path)
    columns = {"near": ["id_str", "image", "ring_yes"], "far": ["id_str", "image", "kind", "dec"]}
    configs = writer.configs_of(tmp_path, writer.campaigns_of(shards), columns)
    write_card(tmp_path, Prose(title="Rings"), None, configs=configs)
    for config in (None, "near", "far", "tiny"):
        loaded, streams = datasets.load_dataset(str(tmp_path), config), open_stream(str(tmp_path), config)
        assert list(streams) == list(loaded)
        for split, stream in streams.items():
            assert stream.features == loaded[split].features
            assert stream.column_names == columns.get(config, list(rows.features))
            same(stream[:], loaded[split].with_format("arrow")[:])
    with pytest.raises(ValueError, match="nowhere"):
        open_stream(str(tmp_path), "nowhere")


def test_a_stream_that_has_been_used_can_be_pickled(stream, copied):
    same(stream[[1, 100]], copied["train"][[1, 100]])
    content = pickle.dumps(stream)
    assert len(content) < 20_000, "no rows are packed"
    same(pickle.loads(content)[[1, 278]], copied["train"][[1, 278]])


def test_each_footer_is_read_once_and_one_is_kept_parsed(folder, copied, monkeypatch):
    asked, opened = Counter(), streaming._opened
    monkeypatch.setattr(streaming, "_opened", lambda file: asked.update([file]) or opened(file))
    stream = open_stream(str(folder))["train"]
    files = {file for file, _ in stream.blocks}
    assert {file: asked[file] for file in files} == dict.fromkeys(files, 1)
    asked.clear()
    assert stream.schemas().keys() == files
    for file in files:
        assert stream._footers[file].equals(pq.read_metadata(file))
        known, footer = stream._footers.last
        assert known == file
        assert stream._footers[file] is footer, "not parsed again"
    assert not asked, "what is packed need not be read again"
    for indices in ([0, 278], [5], [278, 130, 0, 70, 200]):
        same(stream[indices], copied["train"][indices])


@pytest.mark.parametrize("tail", [8, 100, 10**6])
def test_footers_are_found_however_much_is_read_at_first(folder, monkeypatch, tail):
    monkeypatch.setattr(streaming, "TAIL", tail)
    stream = open_stream(str(folder))["train"]
    assert [stream._footers[file].num_rows for file in stream.schemas()] == [
        pq.read_metadata(file).num_rows for file in stream.schemas()
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet file at all", b"PAR1 cut \xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be opened"):
        open_stream(str(tmp_path))


def test_only_parquet_files_are_streamed(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "pictures" / split / "spiral").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / split / "spiral" / "a.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/train.csv").write_text("id_str,image\na,b\n")
    for name in ("pictures", "texts"):
        with pytest.raises(ValueError, match="only datasets of Parquet files can be streamed"):
            open_stream(str(tmp_path / name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": pa.array([1], pa.int32())}, {"x": pa.array([2], pa.int64())}),
        ({"x": pa.array(["a"])}, {"x": pa.array(["b"], pa.large_string())}),
        ({"x": pa.array(["a"])}, {"x": pa.array([None])}),
        ({"x": pa.array(["a"])}, {}),
    ],
    ids=["int32-int64", "string-large", "string-null", "missing"],
)
def test_files_of_other_types_become_one_schema_as_load_dataset_makes_them(one, other, tmp_path):
    pq.write_table(pa.table({"id_str": ["g0"]} | one), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"id_str": ["g1"]} | other), tmp_path / "train-1.parquet")
    loaded = datasets.load_dataset(str(tmp_path), split="train").with_format("arrow")
    stream = open_stream(str(tmp_path))["train"]
    same(stream[:], loaded[:])
    same(stream[[1, 0]], loaded[[1, 0]])


def test_no_rows_are_an_empty_table(stream, copied):
    none = stream.select(np.arange(0))
    assert len(none) == 0
    assert none.shuffled(np.random.default_rng(0)).tolist() == []
    same(none[:], copied["train"].select([])[:])
    assert stream[0:0].num_rows == 0


def test_a_split_that_comes_out_empty_has_no_votes(tmp_path):
    # One galaxy is in one of the two.
    whole = Rows(1)
    datasets.Dataset.from_list([whole.row(0).columns], features=whole.features).to_parquet(tmp_path / "train.parquet")
    copied, streamed = (open_dataset(str(tmp_path), streaming=streaming) for streaming in (False, True))
    assert sorted(map(len, copied.values())) == [0, 1]
    for split in copied:
        assert votes_of(streamed[split], Rows.tree).tolist() == votes_of(copied[split], Rows.tree).tolist()


@pytest.mark.parametrize("chosen", [slice(None), slice(0, None, 3)], ids=["all", "a third"])
def test_a_shuffle_has_every_row_once_and_neighbours_from_few_row_groups(stream, chosen):
    places = np.arange(len(stream))[chosen]
    rows = stream.select(places)
    order, again, other = (rows.shuffled(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert order.dtype.kind == "i"
    assert sorted(order.tolist()) == list(range(len(places)))
    assert order.tolist() == again.tolist()
    assert (order != other).mean() > 0.8
    file, in_file = np.divmod(places[order], 6 * GROUP)
    group = file * 6 + in_file // GROUP
    per_group = len(places) / 28
    # A run of a window's length touches two windows at most; of a plain permutation it would touch nearly all groups.
    most = 2 * (np.ceil(WINDOW / per_group) + 2)
    assert max(len(set(group[i : i + WINDOW])) for i in range(len(order) - WINDOW)) <= most
    assert (np.diff(order) == 1).mean() < 0.1, "rows of a window are mixed"
    first = {tuple(sorted(set(group[:WINDOW]))) for group in (group, places[other] // GROUP)}
    assert len(first) == 2, "and windows are made anew"


def test_of_large_fluxes_few_are_in_memory(tmp_path, monkeypatch):
    pictures = [{"bytes": bytes(10_000), "path": None}] * 60
    table = pa.table({"id_str": list(map(str, range(60))), "image": pictures, "flux": pictures})
    pq.write_table(table, tmp_path / "train-00000.parquet", row_group_size=2, use_dictionary=False, compression="none")
    rows = open_stream(str(tmp_path))["train"]
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 100_000)
    assert rows.select_columns(["image"]).window == WINDOW + 2
    fluxes = rows.select_columns(["flux"])
    assert 8 <= fluxes.window <= 13
    order = fluxes.shuffled(np.random.default_rng(0))
    assert sorted(order) == list(range(60))
    assert len({row // 2 for row in order[:10]}) <= 5, "the first come from one window of a few row groups"


def test_a_row_comes_to_stand_anywhere(stream):
    places = np.stack([np.argsort(stream.shuffled(np.random.default_rng(seed))) for seed in range(400)])
    assert abs(places.mean(axis=0) / 278 - 0.5).max() < 0.1  # 7 standard errors


def sequence_of(rows, share, batch_size, seed=0):
    galaxies = Galaxies(rows, Framing(16), Votes(Rows.tree))
    return TrainingSequence(galaxies, seed, shard=share, batch_size=batch_size)


def seen_by(batches):
    """The numbers of the galaxies, in the order in which a process sees them."""
    return [galaxy for batch in batches for galaxy in batch["votes"][:, 0].tolist()]


def equal(batches, others):
    assert len(batches) == len(others) > 0
    for one, other in zip(batches, others, strict=True):
        assert one.keys() == other.keys() == {"pixels", "votes", "affine"}
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_in_each_epoch_processes_share_the_galaxies_out(stream, copied, processes, accumulate):
    everything = set(copied["train"].select_columns(["ring_yes"])[:]["ring_yes"].to_pylist())
    batch_size = 4 * processes * accumulate
    steps = range(-(-2 * 279 // batch_size) + 1)
    per_process = 279 // processes
    seen = []
    for rank in range(processes):
        share = ProcessShard(rank, processes, accumulate)
        sequence = sequence_of(stream, share, batch_size)
        seen.append(seen_by(training_batches(sequence, batch_size, steps, share, workers=0)))
    for epoch in range(2):
        parts = [galaxies[epoch * per_process : (epoch + 1) * per_process] for galaxies in seen]
        together = list(itertools.chain(*parts))
        assert [len(part) for part in parts] == [per_process] * processes
        assert len(set(together)) == len(together), "none twice, in one process or in two"
        assert set(together) <= everything
    assert seen[0][:per_process] != seen[0][per_process : 2 * per_process]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("share", [ProcessShard(), ProcessShard(1, 2, 2)], ids=["alone", "of two"])
def test_a_run_on_a_stream_goes_on_exactly_where_it_stopped(folder, share, workers):
    def batches(steps, workers):
        sequence = sequence_of(open_stream(str(folder))["train"], share, 16)
        return list(training_batches(sequence, 16, steps, share, workers))

    whole = batches(range(20), 0)  # more than an epoch
    for start in (1, 17):
        equal(batches(range(start, start + 3), workers), whole[start * share.accumulate :][: 3 * share.accumulate])


def test_a_loader_worker_reads_with_threads_of_its_own(stream, monkeypatch):
    monkeypatch.setattr(streaming, "READERS", 1)  # and the parent's one does not survive the fork
    sequence = sequence_of(stream, ProcessShard(), 16)
    list(training_batches(sequence, 16, range(2), ProcessShard(), workers=0))
    there = list(training_batches(sequence, 16, range(1, 14), ProcessShard(), workers=1))
    equal(there, list(training_batches(sequence, 16, range(1, 14), ProcessShard(), workers=0)))


@pytest.mark.parametrize("share", [ProcessShard(), ProcessShard(0, 2)], ids=["alone", "of two"])
def test_what_is_kept_in_memory_is_bounded_and_read_about_once(stream, reads, share):
    sequence = sequence_of(stream, share, 8)
    per_process = 279 // share.processes
    steps = range(per_process * share.processes // 8)  # an epoch
    kept = []
    for _ in training_batches(sequence, 8, steps, share, workers=0):
        tables = [table.result().num_rows for table in sequence.galaxies.rows._cache.tables.values()]
        kept.append(sum(tables))
    assert max(kept) <= 4.5 * WINDOW  # two windows and a half, and one that is being fetched
    assert max(kept) >= WINDOW, "something is fetched in advance"
    assert sum(reads.values()) <= 1.15 * 28 / share.processes + WINDOW / GROUP


@pytest.mark.parametrize("window", [WINDOW, 120])
@pytest.mark.parametrize(("batch_size", "per_8"), [(8, 8), (32, 8), (32, 7), (8, 4), (8, 2)])
def test_row_groups_are_read_once_an_epoch_however_many_of_their_rows_are_chosen(
    stream, reads, batch_size, per_8, window, monkeypatch
):
    monkeypatch.setattr(streaming, "WINDOW_ROWS", window)
    chosen = stream.select(np.flatnonzero(np.arange(len(stream)) % 8 < per_8))
    sequence = sequence_of(chosen, ProcessShard(), batch_size)
    list(training_batches(sequence, batch_size, range(len(chosen) // batch_size), ProcessShard(), workers=0))
    assert sum(reads.values()) <= 1.1 * 28


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_reads_each_row_group_once(stream, reads, workers):
    galaxies = Galaxies(stream, Framing(16), Votes(Rows.tree))
    seen = [seen_by(evaluation_batches(galaxies, 16, ProcessShard(rank, 2), workers)) for rank in range(2)]
    assert seen[0] + seen[1] == stream.select_columns(["ring_yes"])[:]["ring_yes"].to_pylist()
    if not workers:  # which count in their own process
        reads.subtract(range(28))  # of the line before
        assert max(reads.values()) <= 2, "the group in which the halves meet"
        assert sum(reads.values()) <= 29


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_disappears_is_an_error(folder, tmp_path, workers):
    shutil.copytree(folder, tmp_path / "copy")
    stream = open_stream(str(tmp_path / "copy"))["train"]
    (tmp_path / "copy/data/train-00002.parquet").unlink()
    batches = training_batches(sequence_of(stream, ProcessShard(), 8), 8, range(40), ProcessShard(), workers)
    with pytest.raises(FileNotFoundError, match="train-00002"):
        for _ in batches:
            pass
    with pytest.raises(FileNotFoundError, match="train-00002"):
        stream[:]
    (tmp_path / "copy/data/train-00000.parquet").write_bytes(b"no Parquet at all")
    with pytest.raises((OSError, ValueError)):
        open_stream(str(tmp_path / "copy"))
