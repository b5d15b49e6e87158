"""What a dataset's card and its statistics.json say of it, for those who train on it."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard


def card_section(text, heading):
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


@dataclass(frozen=True)
class DatasetFacts:
    """What the card of a dataset says, for the card of a model that learns from it; where it says nothing, None.

    Attributes:
        title: its name, at least that of its folder.
        license: identifier of huggingface.co/docs/hub/repositories-licenses.
        hub_id: of the dataset; None for a folder.
        telescope, problems, citation: the row and the sections of that name; of the citation the BibTeX.
    """

    title: str
    license: str | None = None
    hub_id: str | None = None
    telescope: str | None = None
    problems: str | None = None
    citation: str | None = None

    @classmethod
    def by(cls, name: str) -> "DatasetFacts":
        """The card of a dataset, ours or another: a folder or a Hub id."""
        folder = Path(name)
        hub_id = None if folder.exists() else name
        try:
            card = DatasetCard.load(name if hub_id else folder / "README.md")
        except (OSError, ValueError):  # no card, or one without a header
            return cls(name, hub_id=hub_id)
        telescope = re.search(r"^\| telescope \| (.+) \|$", card.text, re.MULTILINE)
        citation = re.search(r"```bibtex\n(.*?)```", card.text, re.DOTALL)
        stated = card.data.license
        return cls(
            card.data.pretty_name or name,
            stated if isinstance(stated, str) and stated != "unknown" else None,
            hub_id,
            telescope and telescope[1],
            card_section(card.text, "Known problems") or None,
            citation and citation[1].strip(),
        )


STATISTICS, CROISSANT = "statistics.json", "croissant.json"
