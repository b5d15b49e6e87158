"""What MkDocs calls while it builds the site: pages of the repository that are not in docs/ become pages of the site, and the
options of commands become tables.

A link of docs/ to one of them is written for the repository, such as ../results/README.md, so that it works on GitHub, too.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # of this checkout, not of another that is installed
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff")
FOLDERS = ("results", "benchmarks", "metrics", "notebooks", "spaces_app/models")
SUFFIXES = {".md", ".png", ".csv", ".json", ".ipynb"}
# From a page of docs/ to another file of the repository; and from one of those to docs/.
OUT = re.compile(rf"\]\((?:\.\./)+(?=[A-Z]+\.|(?:{'|'.join(FOLDERS)})/)")
IN = re.compile(r"\]\((?:\.\./)*docs/")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository, with their figures and tables."""
    paths = [Path(name) for name in PAGES]
    for folder in FOLDERS:
        paths += [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    for path in paths:
        ignored = {"runs", "cells", ".cells"} & set(path.parts)
        if not ignored and path.name not in ("run.json", "config.json") and (ROOT / path).is_file():
            files.append(File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links of the repository those of the site."""
    markdown = OPTIONS.sub(lambda match: "\n".join(options_of(match[1])), markdown)
    depth = page.file.src_uri.count("/")
    if page.file.generated_by is None:
        return OUT.sub("](" + "../" * depth, markdown)
    return IN.sub("](" + "../" * depth, markdown)


# Options of commands, in place of a comment of the page: <!-- options of finetune -->

OPTIONS = re.compile(r"<!-- options of (\w+) -->")


def options_of(command: str) -> Iterator[str]:
    """Lines of a page: for each dataclass of a command what it does, and a table of its options."""
    settings = importlib.import_module(f"hf_galaxy.commands.{command}").command.settings
    kinds = typing.get_args(settings)
    for kind in kinds or (settings,):
        yield f"### {command} {kind.__name__.lower()}\n" if kinds else f"### {command}\n"
        yield f"{(inspect.getdoc(kind) or '').replace('`', '')}\n"
        yield "| option | default | |\n| --- | --- | --- |"
        yield from rows_of(kind)
        yield ""


def rows_of(kind: Any) -> Iterator[str]:
    """Rows of a table for the fields of a dataclass; those of dataclasses in it follow."""
    about, hints = described(kind), typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        plain = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(plain):
            yield from rows_of(plain)
            continue
        names = [f"--{name.replace('_', '-')}" for name in names_of(field.name, hint)]
        if plain is bool:
            names[0] = f"--[no-]{names[0][2:]}"
        names = ["the first word"] if "Positional" in str(hint) else [f"`{name}`" for name in names]
        yield f"| {', '.join(names)} | {default_of(field)} | {about.get(field.name, '').replace('|', '&#124;')} |"


def names_of(name: str, hint: Any) -> Iterator[str]:
    """The name of an option, and its other names."""
    given = [each for each in getattr(hint, "__metadata__", ()) if hasattr(each, "aliases")]
    yield next((each.name for each in given if each.name), name)
    yield from (alias.removeprefix("--") for each in given for alias in each.aliases or ())


def default_of(field: Any) -> str:
    """What is taken if an option is not given."""
    if field.default is dataclasses.MISSING:
        return "needed"
    if field.name in ("num_proc", "threads"):
        return "all cores"
    if isinstance(field.default, bool):
        return "yes" if field.default else "no"
    value = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return "" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def described(kind: Any) -> dict[str, str]:
    """Field -> what it is: the text below it, or its lines under Attributes in the docstring of the class."""
    about: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                about[field.target.id] = " ".join(text.value.value.split())
        attributes = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", inspect.getdoc(each) or "", re.MULTILINE)
        about |= {name: " ".join(text.split()) for name, text in attributes if name not in about}
    return about
