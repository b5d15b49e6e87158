"""A call as the command that does the same."""

import shlex
import typing
from collections.abc import Mapping
from typing import Any


def command_of(name: str, settings: type, options: Mapping[str, Any]) -> str:
    """The command line that does the same.

    Args:
        name: of the command.
        settings: its dataclass.
        options: of the call, as `checked` returns them.
    """
    hints = typing.get_type_hints(settings, include_extras=True)
    words = ["hf-galaxy", name]
    for option, value in options.items():
        extras = getattr(hints[option], "__metadata__", ())  # such as another name than that of the field
        named = next((each.name for each in extras if getattr(each, "name", None)), option.replace("_", "-"))
        if isinstance(value, bool):
            words.append(f"--{named}" if value else f"--no-{named}")
        elif value is not None:
            words += [f"--{named}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)
