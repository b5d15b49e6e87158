"""What the Space says, in the language of HF_GALAXY_LANGUAGE: text/en.toml holds all of it."""

import os
import tomllib
from pathlib import Path

LANGUAGES = {file.stem: file for file in (Path(__file__).parent / "text").glob("*.toml")}
LANGUAGE = os.environ.get("HF_GALAXY_LANGUAGE", "en")
if LANGUAGE not in LANGUAGES:
    raise SystemExit(
        f"HF_GALAXY_LANGUAGE={LANGUAGE}: there is no text/{LANGUAGE}.toml, only {', '.join(sorted(LANGUAGES))}"
    )
_TEXT = tomllib.loads(LANGUAGES[LANGUAGE].read_text())


def say(name: str, /, **values) -> str:
    """The sentence of that name ("section.name"), its {braces} filled with the values."""
    section, _, key = name.partition(".")
    return _TEXT[section][key].strip().format(**values)


def known(name: str, otherwise: str) -> str:
    """The same of a name that need not be there."""
    section, _, key = name.partition(".")
    return _TEXT[section].get(key, otherwise)
