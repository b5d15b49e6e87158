"""Single columns of an Arrow record batch where it lies in a file, without an object for each of the others.

pyarrow makes three objects for each column of a batch before one can be looked at: of 300 columns that takes longer than to decode
a picture, and a shuffled galaxy has a batch of its own. Where the buffers of a batch lie stands in its message as a plain array (Arrow
columnar format 1.5, "Serialization and Interprocess Communication"; flatbuffers' internals), which is read here.
"""

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

HEADER, ROWS, NODES, BUFFERS, COMPRESSION = 2, 0, 1, 2, 3  # fields of the tables Message and RecordBatch


class Layout:
    """Which nodes and buffers of a record batch are those of a column, by its schema."""

    def __init__(self, schema: pa.Schema):
        self.fields: dict[str, tuple[pa.DataType, slice, slice]] = {}  # column -> type, its nodes, its buffers
        self._of_integers: dict[tuple[str, ...], np.ndarray | None] = {}
        self.known = all(map(_is_known, schema.types)) and len(set(schema.names)) == len(schema)
        node = buffer = 0
        for field in schema if self.known else ():
            nodes, buffers = _counts(field.type)
            self.fields[field.name] = field.type, slice(node, node + nodes), slice(buffer, buffer + buffers)
            node, buffer = node + nodes, buffer + buffers

    def of_integers(self, columns: tuple[str, ...]) -> np.ndarray | None:
        """For each of these columns its node and the buffer of its values, (K, 2); None if they are not all int32."""
        if columns not in self._of_integers:
            fields = [self.fields[column] for column in columns]
            plain = all(kind == pa.int32() for kind, _, _ in fields)
            found = [(nodes.start, buffers.stop - 1) for _, nodes, buffers in fields]
            self._of_integers[columns] = np.array(found) if plain else None
        return self._of_integers[columns]


class LazyBatch:
    """A record batch of which only what is asked for is looked at.

    Args:
        content: a message of the streaming format, from its first byte on.
        layout: of the schema of its file, which must be known.

    Raises:
        ValueError: its buffers are compressed.
    """

    def __init__(self, content: pa.Buffer, layout: Layout):
        message = pa.ipc.read_message(content)
        self.layout, self.body = layout, message.body
        table = _Table(message.metadata).table(HEADER)
        if table.place(COMPRESSION) is not None:
            raise ValueError("compressed buffers are not read where they are")
        self.num_rows = int(table.scalar(ROWS))
        self.nodes = table.pairs(NODES)  # length and number of nulls of each
        self.buffers = table.pairs(BUFFERS)  # first byte, in the body, and bytes of each

    def select(self, columns: Sequence[str]) -> pa.RecordBatch:
        """Some of its columns."""
        arrays = []
        for column in columns:
            kind, nodes, buffers = self.layout.fields[column]
            arrays.append(self._array(kind, iter(self.nodes[nodes].tolist()), iter(self.buffers[buffers].tolist())))
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def matrix(self, columns: tuple[str, ...], places: np.ndarray) -> np.ndarray | None:
        """(N, K): some columns of int32 in some rows, (N,); None if there are other numbers or missing ones."""
        found = self.layout.of_integers(columns)
        if found is None or self.nodes[found[:, 0], 1].any():
            return None
        starts = self.buffers[found[:, 1], 0] // 4  # buffers begin at multiples of 8 bytes
        return np.frombuffer(self.body, np.int32, self.body.size // 4)[starts + places[:, None]]

    def _array(self, kind, nodes, buffers):
        length, nulls = next(nodes)
        if pa.types.is_null(kind):
            return pa.nulls(length)
        own = [next(buffers) for _ in range(kind.num_buffers)]
        children = [self._array(kind.field(i).type, nodes, buffers) for i in range(kind.num_fields)]
        validity, *data = (self.body.slice(*where) for where in own)
        return pa.Array.from_buffers(kind, length, [validity if nulls else None, *data], nulls, 0, children or None)


def _is_known(kind):
    """Types of which each array has the buffers that it has in memory."""
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return all(_is_known(kind.field(i).type) for i in range(kind.num_fields))
    return (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )  # fmt: skip


def _counts(kind) -> tuple[int, int]:
    """Nodes and buffers of a column."""
    children = [_counts(kind.field(i).type) for i in range(kind.num_fields)]
    own = 0 if pa.types.is_null(kind) else kind.num_buffers  # nulls alone have none here, but one in memory
    return 1 + sum(nodes for nodes, _ in children), own + sum(buffers for _, buffers in children)


class _Table:
    """A table of a flatbuffer: by default its root.

    It begins with the distance back to its vtable, which has two bytes for each field: where in the table it is, 0 if it is not there.
    """

    def __init__(self, content: pa.Buffer, start: int | None = None):
        self.content = content
        self.start = self._number("<I", 0) if start is None else start
        self.vtable = self.start - self._number("<i", self.start)

    def _number(self, kind, place):
        return struct.unpack_from(kind, self.content, place)[0]

    def place(self, field: int) -> int | None:
        """Where a field is; None: nowhere, it has its default."""
        slot = 4 + 2 * field
        if slot >= self._number("<H", self.vtable):
            return None
        return self.start + offset if (offset := self._number("<H", self.vtable + slot)) else None

    def scalar(self, field: int) -> int:
        """A 64-bit integer, by default 0."""
        place = self.place(field)
        return 0 if place is None else self._number("<q", place)

    def table(self, field: int) -> "_Table":
        """A table in this one."""
        place = self.place(field)
        return _Table(self.content, place + self._number("<I", place))

    def pairs(self, field: int) -> np.ndarray:
        """(n, 2) int64: a vector of structs of two 64-bit integers."""
        place = self.place(field)
        place += self._number("<I", place)
        return np.frombuffer(self.content, "<i8", 2 * self._number("<I", place), place + 4).reshape(-1, 2)
