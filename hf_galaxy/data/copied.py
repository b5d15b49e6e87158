"""Rows of the copy that the datasets library makes of a dataset, read from its Arrow files.

These files consist of record batches of some 100 rows. `datasets.Dataset` keeps several objects in memory for each column of each
batch: with 300 columns a gigabyte for a million galaxies, in every process. Here only the position of each batch is kept.
"""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from datasets.arrow_reader import ArrowReader
from datasets.packaged_modules.parquet.parquet import Parquet

from hf_galaxy.data.record_batch import Layout, LazyBatch
from hf_galaxy.data.rows import BlockRows
from hf_galaxy.data.streaming import is_damage, is_of_cache
from hf_galaxy.data.vote_matrix import matrix_of, with_matrix
from hf_galaxy.errors import CACHE_ELSEWHERE, BadInput, unwritable

# Decoding one column here takes as long as this many in pyarrow, which always decodes all columns of a record batch.
COST_OF_COLUMN = 10


def open_copy(name: str, config: str | None = None) -> dict[str, "CopiedRows"]:
    """The splits of a dataset (a folder or a Hub id), which the datasets library copies to its cache first if need be.

    Raises:
        BadInput: there is no such dataset.
    """
    try:
        builder = datasets.load_dataset_builder(name, config)
        if isinstance(builder, Parquet):  # which has checksums of its pages if we wrote it
            builder.config.fragment_scan_options = pyarrow.dataset.ParquetFragmentScanOptions(
                page_checksum_verification=True
            )
        builder.download_and_prepare()
        reader, splits = ArrowReader(builder.cache_dir, builder.info), builder.info.splits
        files = {s: reader.get_file_instructions(builder.dataset_name, s, splits.values()) for s in splits}
        return {
            s: CopiedRows([f["filename"] for f in of_split], builder.info.features, name)
            for s, of_split in files.items()
        }
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error  # datasets keeps the reason behind its own error
        reason = " ".join(str(cause).split())
        if is_damage(cause) and (file := _damaged(builder)):
            raise BadInput(f"--dataset {name}: {file} is damaged; copy or publish it again ({reason})") from error
        if isinstance(cause, OSError) and is_of_cache(cause):
            raise unwritable(f"--dataset {name}: its copy", cause, CACHE_ELSEWHERE) from error
        raise BadInput(f"--dataset {name}: cannot be loaded ({reason})") from error


def _damaged(builder: Parquet) -> str | None:
    """The first file of a dataset that is not as it was written."""
    for file in (file for files in builder.config.data_files.values() for file in map(str, files)):
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                parquet.read_row_group(group)
        except (OSError, pa.ArrowException):
            return file
    return None


class CopiedRows(BlockRows):
    """Rows of Arrow files, whose blocks are record batches: (file, first byte, bytes).

    Args:
        files: paths of files in the streaming format.
        features: their schema.
        name: of the dataset, for messages.
    """

    def __init__(self, files: list[str], features: datasets.Features, name: str = "") -> None:
        blocks, sizes = [], []
        for file in files:
            source = pa.memory_map(file)
            schema = pa.ipc.read_schema(source)
            while (first := source.tell()) < source.size() and (message := _next_message(source)):
                sizes.append(pa.ipc.read_record_batch(message, schema).num_rows)
                blocks.append((file, first, source.tell() - first))
        super().__init__(blocks, sizes, features, name)
        self._mapped: dict[str, tuple[pa.Buffer, pa.Schema, Layout]] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_mapped": {}}  # each process maps the files itself

    def _stored(self, indices: list[int] | slice) -> pa.Table:
        chosen, names = self.chosen[indices], self.stored_names
        blocks = self._blocks_of(chosen)
        ends = [*np.flatnonzero(np.diff(blocks)) + 1, len(chosen)] if len(chosen) else []
        parts, votes = [], [np.empty((0, len(self.votes)), np.int32)]
        for first, end in zip([0, *ends], ends, strict=False):
            batch = self._read(blocks[first])
            places = chosen[first:end] - self.starts[blocks[first]]
            if names:
                contiguous = (np.diff(places) == 1).all()
                columns = batch.select(names)
                parts.append(columns.slice(places[0], len(places)) if contiguous else columns.take(pa.array(places)))
            if self.votes:
                votes.append(self._matrix(batch, places))
        rows = pa.Table.from_batches(parts) if parts else self._empty().select(names)
        return with_matrix(rows, self.votes, np.concatenate(votes)) if self.votes else rows

    def _matrix(self, batch: pa.RecordBatch | LazyBatch, places: np.ndarray) -> np.ndarray:
        """(N, K) int32: the votes of some rows of a record batch."""
        votes = batch.matrix(self.votes, places) if isinstance(batch, LazyBatch) else None
        return matrix_of(batch.select(self.votes), self.votes)[places] if votes is None else votes

    def _read(self, block: int) -> pa.RecordBatch | LazyBatch:
        """A record batch; only those of its columns come into memory that are used."""
        file, first, length = self.blocks[block]
        if file not in self._mapped:
            source = pa.memory_map(file)
            schema = pa.ipc.read_schema(source)
            source.seek(0)
            self._mapped[file] = source.read_buffer(), schema, Layout(schema)
        content, schema, layout = self._mapped[file]
        content = content.slice(first, length)
        if layout.supported and len(schema) > COST_OF_COLUMN * (len(self.stored_names) + bool(self.votes)):
            return LazyBatch(content, layout)
        return pa.ipc.read_record_batch(pa.ipc.read_message(content), schema)


def _next_message(source: pa.MemoryMappedFile) -> pa.Message | None:
    """None at the end of the file."""
    try:
        return pa.ipc.read_message(source)
    except EOFError:
        return None
