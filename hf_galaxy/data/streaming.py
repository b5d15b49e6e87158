"""Rows of Parquet files that are read in place, on a disk or on the Hub, and only as far as they are needed.

A Parquet file consists of row groups, each of which can be read alone; its footer says how many rows they have. So the row group
of row i does not depend on what has been read before, and the order of a stream is a function of the seed alone: a run
on a stream can be resumed anywhere, and divided among processes, like a run on a copied dataset.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, groupby
from typing import IO, Self

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import table_cast

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.rows import BlockRows
from hf_galaxy.data.vote_matrix import matrix_of, with_matrix
from hf_galaxy.errors import CACHE_ELSEWHERE, BadInput, NotPublished, unwritable

MAX_ARRAY = 2**31  # bytes of pictures that one array of Arrow can hold
READERS = 8  # threads that read row groups
MAX_UNEXPECTED = 8  # row groups that stay in memory although nobody announced that they will be needed again
TAIL = 65_536  # bytes of the end of a file that are read first: most footers are shorter
WINDOW_ROWS = 4096  # rows that are shuffled among each other; their encoded pictures are in memory
WINDOW_BYTES = 2**30  # of fluxes, of which a galaxy may have many megabytes: then the window has fewer rows


def is_damage(error: BaseException) -> bool:
    """Whether an error of Arrow says that the pages of a file are not those that were written."""
    return "page integrity" in str(error) or "Corrupt" in str(error)


def is_of_cache(error: OSError) -> bool:
    """Whether the system refuses the cache, and not the dataset. An error of a full disk names no file."""
    if error.filename is None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    cache, file = os.path.abspath(datasets.config.HF_DATASETS_CACHE), os.path.abspath(error.filename)
    return os.path.commonpath([cache, file]) in (cache, file)


def open_stream(name: str, config: str | None = None) -> dict[str, "StreamedRows"]:
    """The splits of a dataset of Parquet files (a folder or a Hub id); only the footers of the files are read.

    Raises:
        NotPublished: it does not consist of Parquet files.
        BadInput: there is no such dataset.
    """
    try:
        builder = datasets.load_dataset_builder(name, config)
        if not isinstance(builder, Parquet):
            raise NotPublished("only datasets of Parquet files can be streamed")
        return {
            str(split): StreamedRows([str(file) for file in files], builder.info.features, builder.config.columns, name)
            for split, files in builder.config.data_files.items()
        }
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # Arrow's are ValueErrors
        if isinstance(error, OSError) and is_of_cache(error):
            raise unwritable(f"{name}: the cache of the datasets library", error, CACHE_ELSEWHERE) from error
        kind = NotPublished if isinstance(error, NotPublished) else BadInput
        raise kind(f"{name}: cannot be opened ({' '.join(str(error).split())})") from error


class StreamedRows(BlockRows):
    """Rows of Parquet files, whose blocks are row groups: (file, number of the group).

    Args:
        files: paths or URLs that fsspec supports, such as hf://datasets/...
        features: their schema; None: the schema of the first file.
        columns: the columns to read; None: all.
        name: of the dataset, for messages.
    """

    def __init__(
        self,
        files: list[str],
        features: datasets.Features | None = None,
        columns: list[str] | None = None,
        name: str = "",
    ) -> None:
        self._cache: _GroupCache | None = None
        self._footers = _Footers({})
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(self._footers.fetch, files))
        sizes = [self._footers.rows_of_groups(file) for file in files]
        if features is None:
            features = datasets.Features.from_arrow_schema(self._footers[files[0]].schema.to_arrow_schema())
        selected = datasets.Features({column: features[column] for column in columns or features})
        groups = [(file, group) for file, of_file in zip(files, sizes, strict=True) for group in range(len(of_file))]
        super().__init__(groups, [*chain.from_iterable(sizes)], selected, name)

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """The rows of the first part, then those of the second, ...; all parts are of one dataset."""
        packed = {file: footer for part in parts for file, footer in part._footers.packed.items()}
        return super().concatenated(parts)._with(_footers=_Footers(packed))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_cache": None}  # each process reads for itself

    def _with(self, **changes: object) -> Self:
        return super()._with(**{"_cache": None} | changes)

    def schemas(self) -> dict[str, pa.Schema]:
        """The schema of each file."""
        return {file: self._footers[file].schema.to_arrow_schema() for file in dict(self.blocks)}

    def batches(self, rows: int = 200) -> Iterator[pa.Table]:
        """All rows, in tables of `rows` rows; the last may have fewer."""
        for first in range(0, len(self), rows):
            yield self[list(range(first, min(first + rows, len(self))))]

    def _stored(self, indices: list[int] | slice) -> pa.Table:
        chosen = self.chosen[indices]
        if not len(chosen):
            return self._with_vote_matrix(self._empty())
        groups = self._blocks_of(chosen)
        if isinstance(indices, slice):  # a whole column or two, read once: not worth keeping in memory
            needed = np.unique(groups)
            by_file = [list(part) for _, part in groupby(needed, key=lambda g: self.blocks[g][0])]
            rows = pa.concat_tables(self._reader().readers.map(self._read, by_file))
            sizes = np.diff(self.starts)[needed]
            before = np.cumsum(sizes) - sizes  # rows read before each group
            places = before[np.searchsorted(needed, groups)] + chosen - self.starts[groups]
            contiguous = (np.diff(places) == 1).all()
            return rows.slice(places[0], len(places)) if contiguous else rows.take(places)
        order = np.argsort(groups, kind="stable")
        ends = [*np.flatnonzero(np.diff(groups[order])) + 1, len(order)]
        parts = []
        for first, end in zip([0, *ends], ends, strict=False):  # of one row group each
            group = groups[order[first]]
            parts.append(self._reader().get(int(group)).take(chosen[order[first:end]] - self.starts[group]))
        rows, places = pa.concat_tables(parts), np.argsort(order)
        if (np.diff(order) == 1).all():
            return rows
        if rows.nbytes < MAX_ARRAY:
            return rows.take(places)
        return pa.concat_tables(rows.slice(place, 1) for place in places)

    def prefetch(self, indices: np.ndarray) -> None:
        """Begin to read the row groups of these rows, and release those of the call before that they do not need."""
        groups = self._blocks_of(self.chosen[indices])
        self._reader().expect(dict.fromkeys(groups.tolist()))

    def _reader(self) -> "_GroupCache":
        if self._cache is None or self._cache.process != os.getpid():  # threads do not survive a fork
            self._cache = _GroupCache(self._read)
        return self._cache

    def _read(self, groups: list[int]) -> pa.Table:
        """Row groups of one file."""
        file, _ = self.blocks[groups[0]]
        with _opened(file) as opened:
            footer, columns = self._footers[file], [*self._stored_features]
            parquet = pq.ParquetFile(opened, metadata=footer, pre_buffer=True, page_checksum_verification=True)
            try:
                rows = parquet.read_row_groups([self.blocks[g][1] for g in groups], columns=columns)
            except (OSError, pa.ArrowException) as error:
                if not is_damage(error):
                    raise
                raise BadInput(f"{file}: is damaged; copy or publish it again ({error})") from error
        try:
            # As load_dataset does: files may differ in their types.
            return self._with_vote_matrix(table_cast(rows, self._stored_features.arrow_schema))
        except (pa.ArrowInvalid, datasets.exceptions.DatasetsError) as error:
            raise BadInput(f"{file}: its columns are not of the dataset's types ({error})") from error

    def _with_vote_matrix(self, rows: pa.Table) -> pa.Table:
        if not self.votes:
            return rows
        return with_matrix(rows.select(self.stored_names), self.votes, matrix_of(rows, self.votes))

    def _edges(self) -> np.ndarray:
        """The first of our rows in each row group, and behind the last one the number of rows."""
        return np.searchsorted(self.chosen, self.starts)

    @property
    def window(self) -> int:
        """The most rows that `shuffled` shuffles among each other."""
        return self._window_rows + int(np.diff(self._edges()).max(initial=0))

    @property
    def _window_rows(self) -> int:
        """WINDOW_ROWS, or fewer whose fluxes have WINDOW_BYTES, by the footer of the first file."""
        if FLUX not in self.column_names or not self.blocks:
            return WINDOW_ROWS
        footer = self._footers[self.blocks[0][0]]
        groups = [footer.row_group(g) for g in range(footer.num_row_groups)]
        chunks = [group.column(c) for group in groups for c in range(group.num_columns)]
        size = sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == FLUX)
        return min(WINDOW_ROWS, max(1, WINDOW_BYTES * footer.num_rows // max(1, size)))

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """All rows once, in a random order in which neighbours come from few row groups.

        The row groups are shuffled, then the rows within each sequence of groups that has at least WINDOW_ROWS rows, or fewer of
        large fluxes.
        """
        edges, enough = self._edges(), self._window_rows
        order: list[np.ndarray] = []
        window: list[np.ndarray] = []
        size = 0
        for g in rng.permutation(len(self.blocks)):
            window.append(np.arange(edges[g], edges[g + 1]))
            size += len(window[-1])
            if size >= enough:
                order.append(rng.permutation(np.concatenate(window)))
                window, size = [], 0
        return np.concatenate([*order, rng.permutation(np.concatenate([*window, np.empty(0, int)]))]).astype(int)


class _GroupCache:
    """Row groups that have been read, or are being read by threads.

    Args:
        read: reads row groups of one file.
    """

    def __init__(self, read: Callable[[list[int]], pa.Table]) -> None:
        self.read, self.readers = read, ThreadPoolExecutor(READERS)
        self.tables: OrderedDict[int, Future[pa.Table]] = OrderedDict()  # the least recently used first
        self.expected: set[int] = set()
        self.process = os.getpid()

    def expect(self, groups: Iterable[int]) -> None:
        """Begin to read these, in their order, and keep them until others are expected."""
        groups = list(groups)
        self.expected = set(groups)
        for group in groups:
            self._begin(group)

    def _begin(self, group: int) -> "Future[pa.Table]":
        if group not in self.tables:
            self.tables[group] = self.readers.submit(self.read, [group])
        return self.tables[group]

    def get(self, group: int) -> pa.Table:
        """The rows of a group, when they have been read."""
        table = self._begin(group).result()
        self.tables.move_to_end(group)
        others = [g for g in self.tables if g not in self.expected]
        for least_recent in others[:-MAX_UNEXPECTED]:
            del self.tables[least_recent]
        return table


class _Footers:
    """The footers of files; each is read once.

    A parsed footer takes half a kilobyte and more for each column of each row group, which can be gigabytes for 300 columns and a
    million galaxies. Compressed it takes a fiftieth of that, so all are kept compressed, and only the last used one is also parsed.
    """

    def __init__(self, packed: dict[str, tuple[bytes, int]]) -> None:
        self.packed = packed
        self.last: tuple[str | None, pq.FileMetaData | None] = (None, None)  # replaced as a whole, as threads read it

    def __reduce__(self) -> tuple:
        return _Footers, ({},)

    def fetch(self, file: str) -> None:
        """Read a footer without parsing it: each of many threads would keep the memory that parsing frees."""
        with _opened(file) as opened:
            size = opened.seek(0, os.SEEK_END)
            tail = _from(opened, max(0, size - TAIL))
            # A file without this mark is not a Parquet file, and parsing its footer raises an error.
            length = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
            if length > len(tail):
                tail = _from(opened, max(0, size - length))
        footer = tail[-length:]
        self.packed[file] = pa.compress(footer, "zstd", asbytes=True), len(footer)

    def __getitem__(self, file: str) -> pq.FileMetaData:
        last_file, footer = self.last
        if last_file != file:
            if file not in self.packed:
                self.fetch(file)
            footer = pq.read_metadata(pa.BufferReader(pa.decompress(*self.packed[file], "zstd")))
            self.last = file, footer
        return footer

    def rows_of_groups(self, file: str) -> list[int]:
        """The number of rows of each row group of a file."""
        footer = self[file]
        return [footer.row_group(g).num_rows for g in range(footer.num_row_groups)]


def _from(opened: IO[bytes], place: int) -> bytes:
    """All bytes of a file from a position on."""
    opened.seek(place)
    return opened.read()


def _opened(file: str) -> IO[bytes]:
    """A file of which only the requested ranges are read: a cache that reads ahead would fetch pictures."""
    filesystem, path = fsspec.core.url_to_fs(file)
    return filesystem.open(path, cache_type="none")
