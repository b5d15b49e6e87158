"""Rows of the copy that the datasets library makes of a dataset, read where they are in it.

The copy consists of Arrow files of record batches of some 100 rows. `datasets.Dataset` keeps several objects in memory for each
column of each batch: with 300 columns a gigabyte for a million galaxies, in every process. Here it is where each batch begins.
"""

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_reader import ArrowReader

from hf_galaxy.data.record_batch import Layout, LazyBatch
from hf_galaxy.data.vote_matrix import matrix_of, with_matrix
from hf_galaxy.errors import BadInput

WIDE = 10  # times as fast as we make a column pyarrow makes each, but all that there are


def open_copy(name: str, config: str | None = None) -> dict[str, "CopiedRows"]:
    """The splits of a dataset, a folder or a Hub id, which is copied to the cache of the datasets library if it is not there.

    Raises:
        BadInput: there is no such dataset.
    """
    try:
        builder = datasets.load_dataset_builder(name, config)
        builder.download_and_prepare()
        reader, splits = ArrowReader(builder.cache_dir, builder.info), builder.info.splits
        files = {s: reader.get_file_instructions(builder.dataset_name, s, splits.values()) for s in splits}
        return {
            s: CopiedRows([f["filename"] for f in of_split], builder.info.features, name)
            for s, of_split in files.items()
        }
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())  # datasets keeps the reason behind its own error
        raise BadInput(f"--dataset {name}: cannot be loaded ({reason})") from error


class CopiedRows:
    """Rows of some Arrow files; it answers like a `datasets.Dataset` in Arrow format, as far as we need it.

    Args:
        files: paths of files in the streaming format.
        features: their schema.
        name: of the dataset, for messages.
    """

    def __init__(self, files: list[str], features: datasets.Features, name: str = ""):
        self.name = name
        self.features, self.column_names, self.votes = features, list(features), ()
        self.batches, sizes = [], []  # (file, first byte, bytes) of each record batch
        self._mapped = {}
        for file in files:
            source = pa.memory_map(file)
            schema = pa.ipc.read_schema(source)
            while (first := source.tell()) < source.size() and (message := _message(source)):
                sizes.append(pa.ipc.read_record_batch(message, schema).num_rows)
                self.batches.append((file, first, source.tell() - first))
        self.starts = np.cumsum([0, *sizes])  # the first row of each batch
        self.chosen = np.arange(self.starts[-1])  # our row -> row of the files

    @classmethod
    def concatenated(cls, parts: list["CopiedRows"]) -> "CopiedRows":
        """The rows of the first, then those of the second, ..., all of one dataset."""
        starts = np.cumsum([0] + [part.starts[-1] for part in parts])
        return parts[0]._with(
            batches=[batch for part in parts for batch in part.batches],
            _mapped={},
            starts=np.concatenate(
                [[0], *(part.starts[1:] + start for part, start in zip(parts, starts, strict=False))]
            ),
            chosen=np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
        )

    def __len__(self):
        return len(self.chosen)

    def __getstate__(self):
        return self.__dict__ | {"_mapped": {}}  # each process maps for itself

    def _with(self, **changes):
        other = object.__new__(CopiedRows)
        other.__dict__.update(self.__dict__ | changes)
        return other

    def select(self, indices: np.ndarray) -> "CopiedRows":
        """Only these rows."""
        return self._with(chosen=self.chosen[indices])

    def select_columns(self, columns: list[str], votes: Sequence[str] = ()) -> "CopiedRows":
        """Only these columns, of the others nothing is read; and further ones, of votes, as one (`vote_matrix`)."""
        features = datasets.Features({c: self.features[c] for c in columns})
        return self._with(column_names=columns, features=features, votes=tuple(votes))

    def with_format(self, kind: str) -> "CopiedRows":
        """Itself: rows are always Arrow tables."""
        assert kind == "arrow"
        return self

    def __getitem__(self, indices: list[int] | slice) -> pa.Table:
        wanted = self.chosen[indices]
        of_row = np.searchsorted(self.starts, wanted, side="right") - 1
        ends = [*np.flatnonzero(np.diff(of_row)) + 1, len(wanted)] if len(wanted) else []
        parts, votes = [], [np.empty((0, len(self.votes)), np.int32)]
        for first, end in zip([0, *ends], ends, strict=False):
            batch = self._read(of_row[first])
            places = wanted[first:end] - self.starts[of_row[first]]
            if self.column_names:
                together = (np.diff(places) == 1).all()
                chosen = batch.select(self.column_names)
                parts.append(chosen.slice(places[0], len(places)) if together else chosen.take(pa.array(places)))
            if self.votes:
                votes.append(self._matrix(batch, places))
        rows = pa.Table.from_batches(parts) if parts else self.features.arrow_schema.empty_table()
        return with_matrix(rows, self.votes, np.concatenate(votes)) if self.votes else rows

    def _matrix(self, batch, places):
        votes = batch.matrix(self.votes, places) if isinstance(batch, LazyBatch) else None
        return matrix_of(batch.select(self.votes), self.votes)[places] if votes is None else votes

    def _read(self, batch):
        """The record batch; no more of it than is looked at comes into memory."""
        file, first, length = self.batches[batch]
        if file not in self._mapped:
            source = pa.memory_map(file)
            schema = pa.ipc.read_schema(source)
            source.seek(0)
            self._mapped[file] = source.read_buffer(), schema, Layout(schema)
        content, schema, layout = self._mapped[file]
        content = content.slice(first, length)
        if layout.known and len(schema) > WIDE * (len(self.column_names) + bool(self.votes)):
            return LazyBatch(content, layout)
        return pa.ipc.read_record_batch(pa.ipc.read_message(content), schema)


def _message(source):
    """The next one; None at the end."""
    try:
        return pa.ipc.read_message(source)
    except EOFError:
        return None
