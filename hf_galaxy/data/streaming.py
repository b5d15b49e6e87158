"""Rows of Parquet files that are read where they are, on a disk or on the Hub, and only as far as they are needed.

A Parquet file is made of row groups, each of which can be read alone; their footers say how many rows they have. So row i
is known to stand in group g whatever has been read before, and a stream can be gone through in an order that is a function
of the seed alone: a run on it can stop anywhere and go on, and be shared out to processes, like one on a copied dataset.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, groupby

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import table_cast

from hf_galaxy.data.vote_matrix import matrix_of, with_matrix
from hf_galaxy.errors import BadInput

READERS = 8  # row groups that are fetched at the same time
KEPT = 8  # row groups that are kept though nobody said that they will be needed again
TAIL = 65_536  # bytes of the end of a file that are asked for at first: most footers are shorter
WINDOW_ROWS = 4096  # rows that are shuffled among each other; their encoded pictures are in memory


def open_stream(name: str, config: str | None = None) -> dict[str, "StreamedRows"]:
    """The splits of a dataset of Parquet files, a folder or a Hub id; of the files only the footers are read.

    Raises:
        BadInput: there is no such dataset, or it does not consist of Parquet files.
    """
    try:
        builder = datasets.load_dataset_builder(name, config)
        if not isinstance(builder, Parquet):
            raise ValueError("only datasets of Parquet files can be streamed")
        return {
            str(split): StreamedRows([str(file) for file in files], builder.info.features, builder.config.columns, name)
            for split, files in builder.config.data_files.items()
        }
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # Arrow's are ValueErrors
        raise BadInput(f"{name}: cannot be opened ({' '.join(str(error).split())})") from error


class StreamedRows:
    """Rows of some Parquet files; it answers like a `datasets.Dataset` in Arrow format, as far as we need it.

    Args:
        files: paths or URLs that fsspec knows, such as hf://datasets/...
        features: their schema; None: as the first file says.
        columns: those that there are; None: all.
        name: of the dataset, for messages.
    """

    def __init__(
        self,
        files: list[str],
        features: datasets.Features | None = None,
        columns: list[str] | None = None,
        name: str = "",
    ):
        self.name = name
        self._fetched, self._footers = None, _Footers({})
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(self._footers.fetch, files))
        sizes = [self._footers.rows_of_groups(file) for file in files]
        self.features = features or datasets.Features.from_arrow_schema(
            self._footers[files[0]].schema.to_arrow_schema()
        )
        self.column_names, self.votes = columns or list(self.features), ()
        self.features = datasets.Features({c: self.features[c] for c in self.column_names})
        self.groups = [(file, g) for file, of_file in zip(files, sizes, strict=True) for g in range(len(of_file))]
        self.starts = np.cumsum([0, *chain.from_iterable(sizes)])  # the first row of each group
        self.chosen = np.arange(self.starts[-1])  # our row -> row of the files, growing

    @classmethod
    def concatenated(cls, parts: list["StreamedRows"]) -> "StreamedRows":
        """The rows of the first, then those of the second, ..., all of one dataset."""
        starts = np.cumsum([0] + [part.starts[-1] for part in parts])
        return parts[0]._with(
            groups=[group for part in parts for group in part.groups],
            _footers=_Footers({file: footer for part in parts for file, footer in part._footers.packed.items()}),
            starts=np.concatenate(
                [[0], *(part.starts[1:] + start for part, start in zip(parts, starts, strict=False))]
            ),
            chosen=np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
        )

    def __len__(self):
        return len(self.chosen)

    def __getstate__(self):
        return self.__dict__ | {"_fetched": None}  # each process reads for itself

    def _with(self, **changes):
        other = object.__new__(StreamedRows)
        other.__dict__.update(self.__dict__ | {"_fetched": None} | changes)
        return other

    def schemas(self) -> dict[str, pa.Schema]:
        """What each file says of its columns."""
        return {file: self._footers[file].schema.to_arrow_schema() for file in dict(self.groups)}

    def batches(self, rows: int = 200) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        for first in range(0, len(self), rows):
            yield self[list(range(first, min(first + rows, len(self))))]

    def select(self, indices: np.ndarray) -> "StreamedRows":
        """Only these rows, which must be growing."""
        return self._with(chosen=self.chosen[indices])

    def select_columns(self, columns: list[str], votes: Sequence[str] = ()) -> "StreamedRows":
        """Only these columns, of the others nothing is read; and further ones, of votes, as one (`vote_matrix`)."""
        features = datasets.Features({c: self.features[c] for c in (*columns, *votes)})
        return self._with(column_names=columns, features=features, votes=tuple(votes))

    def with_format(self, kind: str) -> "StreamedRows":
        """Itself: rows are always Arrow tables."""
        assert kind == "arrow"
        return self

    def __getitem__(self, indices: list[int] | slice) -> pa.Table:
        wanted = self.chosen[indices]
        if not len(wanted):
            return self._together(self.features.arrow_schema.empty_table())
        groups = np.searchsorted(self.starts, wanted, side="right") - 1
        if isinstance(indices, slice):  # a whole column or two: once, not to be kept
            needed = np.unique(groups)
            by_file = [list(part) for _, part in groupby(needed, key=lambda g: self.groups[g][0])]
            rows = pa.concat_tables(self._reader().readers.map(self._read, by_file))
            sizes = np.diff(self.starts)[needed]
            before = np.cumsum(sizes) - sizes  # rows read before each group
            places = before[np.searchsorted(needed, groups)] + wanted - self.starts[groups]
            together = (np.diff(places) == 1).all()
            return rows.slice(places[0], len(places)) if together else rows.take(places)
        tables = {g: self._reader().get(g) for g in dict.fromkeys(groups.tolist())}
        places = zip(groups.tolist(), (wanted - self.starts[groups]).tolist(), strict=True)
        return pa.concat_tables(tables[g].slice(place, 1) for g, place in places)

    def prefetch(self, indices: np.ndarray) -> None:
        """Begin to read what these rows need, and forget, of what was read for such a call, what they do not need."""
        groups = np.searchsorted(self.starts, self.chosen[indices], side="right") - 1
        self._reader().expect(dict.fromkeys(groups.tolist()))

    def _reader(self):
        if self._fetched is None or self._fetched.process != os.getpid():  # threads do not survive a fork
            self._fetched = _Fetched(self._read)
        return self._fetched

    def _read(self, groups):
        """Row groups of one file."""
        file, _ = self.groups[groups[0]]
        with _opened(file) as opened:
            parquet = pq.ParquetFile(opened, metadata=self._footers[file], pre_buffer=True)
            columns = [*self.column_names, *self.votes]
            rows = parquet.read_row_groups([self.groups[g][1] for g in groups], columns=columns)
        try:
            # As load_dataset does: files may differ in their types.
            return self._together(table_cast(rows, self.features.arrow_schema))
        except (pa.ArrowInvalid, datasets.exceptions.DatasetsError) as error:
            raise BadInput(f"{file}: its columns are not of the dataset's types ({error})") from error

    def _together(self, rows):
        if not self.votes:
            return rows
        return with_matrix(rows.select(self.column_names), self.votes, matrix_of(rows, self.votes))

    def _edges(self):
        """Where the groups begin in our rows."""
        return np.searchsorted(self.chosen, self.starts)

    @property
    def window(self) -> int:
        """The most rows that `shuffled` shuffles among each other."""
        return WINDOW_ROWS + int(np.diff(self._edges()).max(initial=0))

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """All rows once, in a random order in which neighbours stand in a few row groups.

        The row groups are shuffled, and then the rows of each run of groups that makes up WINDOW_ROWS among each other.
        """
        edges = self._edges()
        order, window, size = [], [], 0
        for g in rng.permutation(len(self.groups)):
            window.append(np.arange(edges[g], edges[g + 1]))
            size += len(window[-1])
            if size >= WINDOW_ROWS:
                order.append(rng.permutation(np.concatenate(window)))
                window, size = [], 0
        return np.concatenate([*order, rng.permutation(np.concatenate([*window, np.empty(0, int)]))]).astype(int)


class _Fetched:
    """Row groups that have been read, or are being read by threads."""

    def __init__(self, read):
        self.read, self.readers, self.tables = read, ThreadPoolExecutor(READERS), OrderedDict()
        self.expected = {}
        self.process = os.getpid()

    def expect(self, groups: dict[int, None]) -> None:
        """Begin to read these, and keep them until others are expected."""
        self.expected = groups
        for group in groups:
            self._begin(group)

    def _begin(self, group) -> Future:
        if group not in self.tables:
            self.tables[group] = self.readers.submit(self.read, [group])
        return self.tables[group]

    def get(self, group) -> pa.Table:
        table = self._begin(group).result()
        self.tables.move_to_end(group)
        others = [g for g in self.tables if g not in self.expected]  # the longest unused first
        for forgotten in others[:-KEPT]:
            del self.tables[forgotten]
        return table


class _Footers:
    """What the footers of files say; each file is asked once.

    Parsed, a footer takes half a kilobyte and more for each column of each row group, which of 300 columns and a million
    galaxies can be gigabytes. Packed it takes a fiftieth of that, so all are kept packed, and only the last used parsed as well.
    """

    def __init__(self, packed: dict[str, tuple[bytes, int]]):
        self.packed = packed
        self.last: tuple[str | None, pq.FileMetaData | None] = (None, None)  # replaced as a whole, as threads read it

    def __reduce__(self):
        return _Footers, ({},)

    def fetch(self, file: str) -> None:
        """Read what a file says, but do not parse it: each of many threads would hold on to the memory that it freed then."""
        with _opened(file) as opened:
            size = opened.seek(0, os.SEEK_END)
            tail = _from(opened, max(0, size - TAIL))
            # Without its mark it is no Parquet file, which parsing will say.
            length = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
            if length > len(tail):
                tail = _from(opened, max(0, size - length))
        footer = tail[-length:]
        self.packed[file] = pa.compress(footer, "zstd", asbytes=True), len(footer)

    def __getitem__(self, file: str) -> pq.FileMetaData:
        known, footer = self.last
        if known != file:
            if file not in self.packed:
                self.fetch(file)
            footer = pq.read_metadata(pa.BufferReader(pa.decompress(*self.packed[file], "zstd")))
            self.last = file, footer
        return footer

    def rows_of_groups(self, file: str) -> list[int]:
        """How many rows each row group of a file has."""
        footer = self[file]
        return [footer.row_group(g).num_rows for g in range(footer.num_row_groups)]


def _from(opened, place):
    """All bytes of a file from a place on."""
    opened.seek(place)
    return opened.read()


def _opened(file):
    """A file that is read in just the ranges that are asked for: reading on a little further would fetch pictures."""
    filesystem, path = fsspec.core.url_to_fs(file)
    return filesystem.open(path, cache_type="none")
