"""What the Space says, in the language of HF_GALAXY_LANGUAGE: text/en.toml holds all of it."""

import os
import tomllib
from pathlib import Path

LANGUAGE = os.environ.get("HF_GALAXY_LANGUAGE", "en")
_TEXT = tomllib.loads((Path(__file__).parent / "text" / f"{LANGUAGE}.toml").read_text())


def say(name: str, /, **values) -> str:
    """The sentence of that name ("section.name"), its {braces} filled with the values."""
    section, _, key = name.partition(".")
    return _TEXT[section][key].strip().format(**values)


def known(name: str, otherwise: str) -> str:
    """The same of a name that need not be there."""
    section, _, key = name.partition(".")
    return _TEXT[section].get(key, otherwise)
