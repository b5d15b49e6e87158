"""The folder of a page that a command makes, and replaces when it runs again: README.md, and figures with their tables."""

from collections.abc import Sequence
from pathlib import Path

from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.reports.charts import Figure

PAGE = "README.md"


def check_page(out: Path, mark: str) -> None:
    """Refuse to replace a page that a person wrote, before work is done for the new one.

    Args:
        out: the folder of the page; it need not exist.
        mark: the line that every page of the command holds.

    Raises:
        BadInput: `out` is a file, or its README.md lacks the mark.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file; give a folder")
    page = out / PAGE
    if page.exists() and mark not in page.read_text(encoding="utf-8"):
        raise BadInput(f"--out {out}: its {PAGE} was not made by this command; choose another folder")


def write_page(out: Path, text: str, figures: Sequence[Figure], kinds: Sequence[str] = ()) -> None:
    """Write README.md, and NAME.png and NAME.csv of each figure, into a folder; each file whole or not at all.

    Args:
        kinds: beginnings of the names of figures; others that begin so, of an earlier page, are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {f"{figure.name}.png": figure.png for figure in figures}
    files |= {f"{figure.name}.csv": figure.csv.encode() for figure in figures}
    for name, content in {**files, PAGE: text.encode()}.items():
        with whole_file(out / name) as partial:
            partial.write_bytes(content)
    for file in out.iterdir():
        if file.name.startswith(tuple(kinds)) and file.name not in files:
            file.unlink()
