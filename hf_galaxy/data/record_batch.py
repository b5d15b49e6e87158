"""Single columns of an Arrow record batch, read from its file without creating objects for the other columns.

pyarrow creates three objects for each column of a batch before one of them can be read: for 300 columns that takes longer than
decoding a picture, and each shuffled galaxy has a batch of its own. The message of a batch holds the positions of its buffers as
a plain array (Arrow columnar format 1.5, "Serialization and Interprocess Communication"; flatbuffers' internals), which is read here.
"""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

HEADER, ROWS, NODES, BUFFERS, COMPRESSION = 2, 0, 1, 2, 3  # fields of the tables Message and RecordBatch


class Layout:
    """The nodes and buffers of each column of a record batch, derived from its schema.

    Attributes:
        fields: column -> its type, nodes and buffers; empty unless `supported`.
        supported: whether all columns have supported types, and names of their own.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.fields: dict[str, tuple[pa.DataType, slice, slice]] = {}
        self._of_integers: dict[tuple[str, ...], np.ndarray | None] = {}
        self.supported = all(map(_is_supported, schema.types)) and len(set(schema.names)) == len(schema)
        node = buffer = 0
        for field in schema if self.supported else ():
            nodes, buffers = _counts(field.type)
            self.fields[field.name] = field.type, slice(node, node + nodes), slice(buffer, buffer + buffers)
            node, buffer = node + nodes, buffer + buffers

    def of_integers(self, columns: tuple[str, ...]) -> np.ndarray | None:
        """(K, 2): the node of each of these columns and the buffer of its values; None unless all are int32."""
        if columns not in self._of_integers:
            fields = [self.fields[column] for column in columns]
            integers = all(kind == pa.int32() for kind, _, _ in fields)
            places = [(nodes.start, buffers.stop - 1) for _, nodes, buffers in fields]
            self._of_integers[columns] = np.array(places) if integers else None
        return self._of_integers[columns]


class LazyBatch:
    """A record batch whose columns are decoded when they are selected.

    Args:
        content: a message of the streaming format, from its first byte on.
        layout: of the schema of its file; must be supported.

    Raises:
        ValueError: its buffers are compressed.
    """

    def __init__(self, content: pa.Buffer, layout: Layout) -> None:
        message = pa.ipc.read_message(content)
        self.layout, self.body = layout, message.body
        table = _Table(message.metadata).table(HEADER)
        if table.place(COMPRESSION) is not None:
            raise ValueError("compressed buffers are not supported")
        self.num_rows = int(table.scalar(ROWS))
        self.nodes = table.pairs(NODES)  # the length of each, and its number of nulls
        self.buffers = table.pairs(BUFFERS)  # the first byte of each in the body, and its number of bytes

    def select(self, columns: Sequence[str]) -> pa.RecordBatch:
        """These columns."""
        arrays = []
        for column in columns:
            kind, nodes, buffers = self.layout.fields[column]
            arrays.append(self._array(kind, iter(self.nodes[nodes].tolist()), iter(self.buffers[buffers].tolist())))
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def matrix(self, columns: tuple[str, ...], places: np.ndarray) -> np.ndarray | None:
        """(N, K): int32 columns in some rows; None if a column has another type or missing values.

        Args:
            places: (N,) rows of the batch.
        """
        fields = self.layout.of_integers(columns)
        if fields is None or self.nodes[fields[:, 0], 1].any():
            return None
        starts = self.buffers[fields[:, 1], 0] // 4  # buffers begin at multiples of 8 bytes
        return np.frombuffer(self.body, np.int32, self.body.size // 4)[starts + places[:, None]]

    def _array(self, kind: pa.DataType, nodes: Iterator[list[int]], buffers: Iterator[list[int]]) -> pa.Array:
        length, nulls = next(nodes)
        if pa.types.is_null(kind):
            return pa.nulls(length)
        own = [next(buffers) for _ in range(kind.num_buffers)]
        children = [self._array(kind.field(i).type, nodes, buffers) for i in range(kind.num_fields)]
        validity, *data = (self.body.slice(*where) for where in own)
        return pa.Array.from_buffers(kind, length, [validity if nulls else None, *data], nulls, 0, children or None)


def _is_supported(kind: pa.DataType) -> bool:
    """Whether arrays of this type have the same buffers in a file as in memory."""
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return all(_is_supported(kind.field(i).type) for i in range(kind.num_fields))
    return (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )  # fmt: skip


def _counts(kind: pa.DataType) -> tuple[int, int]:
    """The numbers of nodes and buffers of a column."""
    children = [_counts(kind.field(i).type) for i in range(kind.num_fields)]
    own = (
        0 if pa.types.is_null(kind) else kind.num_buffers
    )  # an array of nulls has no buffer in a file, and one in memory
    return 1 + sum(nodes for nodes, _ in children), own + sum(buffers for _, buffers in children)


class _Table:
    """A table of a flatbuffer, by default its root.

    It begins with the distance back to its vtable, which has two bytes for each field: its offset in the table, 0 if it is absent.
    """

    def __init__(self, content: pa.Buffer, start: int | None = None) -> None:
        self.content = content
        self.start = self._number("<I", 0) if start is None else start
        self.vtable = self.start - self._number("<i", self.start)

    def _number(self, kind: str, place: int) -> int:
        return struct.unpack_from(kind, self.content, place)[0]

    def place(self, field: int) -> int | None:
        """The position of a field; None if it is absent, and has its default value."""
        slot = 4 + 2 * field
        if slot >= self._number("<H", self.vtable):
            return None
        return self.start + offset if (offset := self._number("<H", self.vtable + slot)) else None

    def _required(self, field: int) -> int:
        place = self.place(field)
        assert place is not None, f"field {field} is absent"
        return place

    def scalar(self, field: int) -> int:
        """A 64-bit integer, by default 0."""
        place = self.place(field)
        return 0 if place is None else self._number("<q", place)

    def table(self, field: int) -> "_Table":
        """A table in this one."""
        place = self._required(field)
        return _Table(self.content, place + self._number("<I", place))

    def pairs(self, field: int) -> np.ndarray:
        """(n, 2) int64: a vector of structs of two 64-bit integers."""
        place = self._required(field)
        place += self._number("<I", place)
        return np.frombuffer(self.content, "<i8", 2 * self._number("<I", place), place + 4).reshape(-1, 2)
