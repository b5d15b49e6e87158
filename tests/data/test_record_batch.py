"""Single columns of record batches, read where they lie, are what pyarrow reads, and are refused where they cannot be."""

import numpy as np
import pyarrow as pa
import pytest

from hf_galaxy.data.record_batch import Layout, LazyBatch

ROWS = 7
NESTED = pa.struct(
    [("bytes", pa.binary()), ("path", pa.string()), ("boxes", pa.list_(pa.struct([("x", pa.float64())])))]
)
KINDS = [
    pa.int32(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(),
    pa.large_binary(), pa.null(), pa.list_(pa.int32()), pa.large_list(pa.null()), NESTED,
]  # fmt: skip
VALUES = {
    "integers": [3, 0, 1, 2, 100, 7, 8],
    "texts": ["galaxy", "", "ü", "x" * 300, "a", "b", "c"],
}


def some(kind, missing):
    """Values of a type; with missing ones, every third of them, inside lists and structs, too."""
    if pa.types.is_struct(kind):
        parts = {field.name: some(field.type, missing) for field in kind}
        values = [{name: part[i] for name, part in parts.items()} for i in range(ROWS)]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = [some(kind.value_type, missing)[:i] for i in range(ROWS)]
    elif pa.types.is_null(kind):
        values = [None] * ROWS
    elif pa.types.is_integer(kind):
        values = VALUES["integers"]
    elif pa.types.is_floating(kind):
        values = [np.float16(i) / 8 for i in VALUES["integers"]]
    elif pa.types.is_boolean(kind):
        values = [i % 2 == 0 for i in VALUES["integers"]]
    else:
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        values = [text.encode() if binary else text for text in VALUES["texts"]]
    return [None if missing and i % 3 == 0 else value for i, value in enumerate(values)]


def message_of(batch, **options):
    """A batch as the streaming format has it, from its first byte on."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    content = pa.BufferReader(sink.getvalue())
    pa.ipc.read_schema(content)
    return sink.getvalue().slice(content.tell())


@pytest.mark.parametrize("rows", [ROWS, 1, 0])
@pytest.mark.parametrize("missing", [False, True])
def test_columns_of_every_type_are_those_of_pyarrow(missing, rows):
    names = [f"column{i}" for i in range(len(KINDS))]
    arrays = [pa.array(some(kind, missing), kind) for kind in KINDS]
    batch = pa.record_batch(arrays, names=names).slice(0, rows)
    lazy = LazyBatch(message_of(batch), Layout(batch.schema))
    assert lazy.num_rows == rows
    for chosen in (names, names[::-3], names[4:5]):
        found = lazy.select(chosen)
        found.validate(full=True)
        assert found.equals(batch.select(chosen))


def test_a_matrix_has_the_numbers_of_its_columns_and_there_is_none_with_missing_ones():
    numbers = np.random.default_rng(0).integers(-5, 100, (50, 9), dtype=np.int32)
    names = [f"answer{i}" for i in range(9)]
    gap = [None, *range(49)]
    batch = pa.record_batch(
        [
            pa.array(["galaxy"] * 50),
            *map(pa.array, numbers.T),
            pa.array(gap, pa.int32()),
            pa.array(range(50), pa.int64()),
        ],
        names=["id_str", *names, "gap", "long"],
    )
    lazy = LazyBatch(message_of(batch), Layout(batch.schema))
    some = np.array([49, 0, 7, 7])
    np.testing.assert_array_equal(lazy.matrix(tuple(names), some), numbers[some])
    np.testing.assert_array_equal(lazy.matrix((names[5], names[0]), some), numbers[some][:, [5, 0]])
    assert lazy.matrix((names[0], "gap"), some) is None
    assert lazy.matrix((names[0], "long"), some) is None
    assert lazy.matrix((names[0], "id_str"), some) is None


def test_types_whose_buffers_are_elsewhere_are_known_as_such():
    kinds = [pa.dictionary(pa.int32(), pa.string()), pa.string_view(), pa.list_(pa.string_view()), pa.date32()]
    for kind in kinds:
        assert not Layout(pa.schema([("id_str", pa.string()), ("other", kind)])).supported
    assert not Layout(pa.schema([("twice", pa.string()), ("twice", pa.string())])).supported


def test_compressed_buffers_are_refused():
    batch = pa.record_batch([pa.array(range(1000), pa.int32())], names=["votes"])
    with pytest.raises(ValueError, match="compressed"):
        LazyBatch(message_of(batch, compression="zstd"), Layout(batch.schema))
