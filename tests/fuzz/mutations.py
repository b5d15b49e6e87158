"""Ways to damage what is valid: values anywhere in JSON, bytes anywhere in a file."""

import math
from copy import deepcopy

from hypothesis import strategies as st

# A hundred characters at most: hypothesis needs seconds to count all of Unicode.
CHARACTERS = "ab01 _-.,:;/\\'\"=+@{}[]<>%#|&é½٣字\u202e\ufeff\u2028\0\n\t\x1b"
TEXTS = st.text(st.sampled_from(CHARACTERS), max_size=8)
# What JSON, YAML or TOML can hold where something else was meant.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400, math.nan, math.inf, -math.inf, 1e308, 5e-324]),
    st.floats(),
    TEXTS,
    st.sampled_from(
        ["", "\0", "\n", "a\u2028b", "../x", "/etc/passwd", "é" * 300, "{x", "%s", "\ud800", "=1+1", "nan"]
    ),
    st.lists(st.integers() | TEXTS, max_size=3),
    st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=2),
    st.just([[[]]]),
)


def places_in(value, path=()):
    """The paths of all values within lists and mappings."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places_in(each, (*path, key))


@st.composite
def changed(draw, valid, changes=2, odd=ODD):
    """A valid JSON value, in which some values or keys are replaced, removed, or there twice.

    Args:
        valid: a strategy, or a value.
        changes: most of them.
    """
    value = deepcopy(draw(valid) if isinstance(valid, st.SearchStrategy) else valid)
    for _ in range(draw(st.integers(0, changes))):
        paths = [path for path in places_in(value) if path]
        if not paths:
            return deepcopy(draw(odd))
        *parents, last = draw(st.sampled_from(paths))
        holder = value
        for key in parents:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "remove", "rename", "copy"]))
        if how == "replace":
            holder[last] = deepcopy(draw(odd))  # some are one object each time, which later changes would change
        elif how == "remove":
            del holder[last]
        elif isinstance(holder, dict):
            name = draw(TEXTS | st.sampled_from(sorted(map(str, holder))))
            holder[name] = holder.pop(last) if how == "rename" else holder[last]
        else:
            holder.insert(0, deepcopy(holder[last]))
    return value


@st.composite
def damaged(draw, valid, changes=3):
    """Bytes, in which some are changed, removed, doubled, or where they end too early.

    Args:
        valid: a strategy of bytes.
        changes: most of them.
    """
    content = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, changes))):
        if not content:
            break
        # Headers decide most, and are at the beginning.
        start = draw(st.integers(0, min(len(content), 64) - 1) | st.integers(0, len(content) - 1))
        how = draw(st.sampled_from(["set", "set", "number", "remove", "double", "insert", "end"]))
        length = draw(st.integers(1, 16))
        if how == "set":
            content[start] = draw(st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
        elif how == "number":
            size, order = draw(st.sampled_from([(2, "big"), (4, "big"), (4, "little"), (8, "little")]))
            number = draw(st.sampled_from([0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]))
            content[start : start + size] = (number % 2 ** (8 * size)).to_bytes(size, order)
        elif how == "remove":
            del content[start : start + length]
        elif how == "double":
            content[start:start] = content[start : start + length]
        elif how == "insert":
            content[start:start] = draw(st.binary(min_size=1, max_size=16))
        else:
            del content[start:]
    return bytes(content)
