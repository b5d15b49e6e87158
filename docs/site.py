"""What MkDocs calls while it builds the site: pages of the repository that are not in docs/ become pages of the site.

A link of docs/ to one of them is written for the repository, such as ../results/README.md, so that it works on GitHub, too.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
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
    depth = page.file.src_uri.count("/")
    if page.file.generated_by is None:
        return OUT.sub("](" + "../" * depth, markdown)
    return IN.sub("](" + "../" * depth, markdown)
