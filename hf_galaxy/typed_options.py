"""Values for the fields of a dataclass of options, checked by its types: those of a call, and those of a file that somebody else has written."""

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hf_galaxy.errors import BadInput
from hf_galaxy.plain_values import check_texts, checked_number, checked_whole

NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "None",
}


def checked(settings: type, options: Mapping[str, Any], unnamed: Sequence[str] = ()) -> dict[str, Any]:
    """The options with the types of a command's dataclass: lists become tuples, whole numbers floats, and texts paths.

    Args:
        settings: the dataclass; its fields are the options.
        unnamed: those that the message about an unknown one does not offer.

    Raises:
        BadInput: there is no such option, or it has another type.
    """
    kinds = _kinds_of(settings)
    names = [field.name for field in dataclasses.fields(settings)]
    values = {}
    for name, value in options.items():
        if name not in names:
            offered = [each for each in names if each not in unnamed]
            near = difflib.get_close_matches(name, offered, 1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(offered)}"
            raise BadInput(f"{name}: there is no such option; {hint}")
        try:
            values[name] = _converted(value, kinds[name])
        except TypeError:
            shown = repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"
            raise BadInput(f"{name}: {shown} has the wrong type; give {_described(kinds[name])}") from None
        except ValueError as error:
            raise BadInput(f"{name}: {error}") from None
        check_texts(name, values[name])
    return values


def _converted(value: Any, kind: Any) -> Any:
    """The value as a type of a dataclass.

    Raises:
        TypeError: it is none.
        ValueError: it is a number that is not finite, or not of 64 bits.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _converted(value, part)
            except TypeError:
                continue
    elif origin is Literal and value in parts and type(value) in {type(part) for part in parts}:
        return value
    elif origin is tuple:
        several = parts[-1] is Ellipsis
        values = list(value) if isinstance(value, list | tuple) else [value] if several else []
        if several or len(values) == len(parts):
            return tuple(_converted(each, parts[0]) for each in values)
    elif kind is types.NoneType and value is None:
        return None
    elif kind is bool and isinstance(value, bool):
        return value
    elif kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return checked_whole(int(value))
    elif kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return checked_number(value)
    elif kind in (str, Path) and isinstance(value, str | Path):
        return kind(value)
    raise TypeError


@cache
def _kinds_of(settings: type) -> dict[str, Any]:
    return typing.get_type_hints(settings)


def _described(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, parts))
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is tuple:
        number = "a list, each" if parts[-1] is Ellipsis else f"a list of {len(parts)}, each"
        return f"{number} {_described(parts[0])}"
    return NAMES.get(kind) or f"a {kind.__name__}"
