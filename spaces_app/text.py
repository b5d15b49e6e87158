"""The texts of the Space, in the language of HF_GALAXY_LANGUAGE: all of them are in text/en.toml."""

import os
import tomllib
from pathlib import Path

LANGUAGES = {file.stem: file for file in (Path(__file__).parent / "text").glob("*.toml")}
LANGUAGE = os.environ.get("HF_GALAXY_LANGUAGE", "en")
if LANGUAGE not in LANGUAGES:
    raise SystemExit(
        f"HF_GALAXY_LANGUAGE={LANGUAGE}: there is no text/{LANGUAGE}.toml, only {', '.join(sorted(LANGUAGES))}"
    )
_TEXT = tomllib.loads(LANGUAGES[LANGUAGE].read_text(encoding="utf-8"))


def sentence(name: str, /, **values: object) -> str:
    """The text of that name ("section.name"), with the values in its {braces}."""
    section, _, key = name.partition(".")
    return _TEXT[section][key].strip().format(**values)


def sentence_or(name: str, default: str) -> str:
    """The text of that name, or a default if there is none."""
    section, _, key = name.partition(".")
    return _TEXT[section].get(key, default)
