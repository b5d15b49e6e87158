"""JSON that anybody may have written: whatever is wrong with it is a ValueError, and so is what is no text, list or mapping where one is meant."""

import json
from collections.abc import Callable
from typing import Any

SURROGATE = "\\ud"


def parsed(text: str | bytes, pairs: Callable | None = None) -> Any:
    """What a JSON text holds.

    Args:
        text: bytes are UTF-8.
        pairs: makes something of the names and values of each object; None: a dictionary.

    Raises:
        ValueError: it is none, is nested too deeply, or has a text that UTF-8 cannot hold.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        content = json.loads(text, object_pairs_hook=pairs)
        if SURROGATE in text.lower():  # which may be half of a pair
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    return content


def mapping_in(text: str | bytes) -> dict[str, Any]:
    """The mapping that a JSON text holds.

    Raises:
        ValueError: as `parsed`; or it holds something else.
    """
    content = parsed(text)
    if not isinstance(content, dict):
        raise ValueError("is no mapping of names to values")
    return content


def text_of(holder: Any, key: str) -> str:
    """A text in a mapping.

    Raises:
        ValueError: it is not there, or none.
    """
    value = mapping_of(holder).get(key)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is no text")
    return value


def texts_of(holder: Any, key: str) -> tuple[str, ...]:
    """A list of texts in a mapping.

    Raises:
        ValueError: it is not there, or none.
    """
    value = mapping_of(holder).get(key)
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"its {key} are no list of texts")
    return tuple(value)


def mappings_of(holder: Any, key: str) -> list[dict]:
    """A list of mappings in a mapping.

    Raises:
        ValueError: it is not there, or none.
    """
    value = mapping_of(holder).get(key)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"its {key} are no list of mappings")
    return value


def mapping_of(value: Any) -> dict:
    """The value, a mapping.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError("is no mapping of names to values")
    return value
