"""Facts from a dataset's card, for the models trained on it and their cards."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.schema import NATIVE
from hf_galaxy.errors import BadInput
from hf_galaxy.plain_json import mapping_in, mapping_of, text_of, texts_of

logger = logging.getLogger(__name__)
STATISTICS = "statistics.json"  # beside a dataset's card
MOST_ARCSEC = 3600.0  # within which two galaxies may be called the same


def read_statistics(file: Path) -> dict[str, Any]:
    """The content of statistics.json, of anybody: what other code than its comparison with the data needs of it has its type.

    Raises:
        ValueError: it holds none.
    """
    statistics = mapping_in(file.read_bytes())
    if statistics.get("rendering") is not None:
        Rendering.of(mapping_of(statistics["rendering"]))
    for key, check in {"license": text_of, "notes": texts_of}.items():
        if key in statistics:
            check(statistics, key)
    if "fluxes" in statistics:
        texts_of(statistics["fluxes"], "bands")
    mapping_of(statistics.get("values", {}))
    arcsec = statistics.get("arcsec", 0)
    if not isinstance(arcsec, int | float) or not 0 <= arcsec <= MOST_ARCSEC:
        raise ValueError("its arcsec is no angle between neighbours")
    return statistics


def card_section(text: str, heading: str) -> str:
    """The text below a heading of level 2 of a card; empty if there is no such heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return section[1].strip() if section else ""


@dataclass(frozen=True)
class DatasetFacts:
    """What the card of a dataset states; None for what it does not state.

    Attributes:
        title: the dataset's name; without a card that of its folder or table, or its Hub id.
        license: identifier of huggingface.co/docs/hub/repositories-licenses.
        hub_id: of the dataset; None for a folder.
        telescope: the row of that name.
        problems: the section "Known problems".
        citation: the BibTeX entry.
        rendering: how files became its pictures, as of `Rendering.to_dict`.
    """

    title: str
    license: str | None = None
    hub_id: str | None = None
    telescope: str | None = None
    problems: str | None = None
    citation: str | None = None
    rendering: dict[str, Any] | None = None

    @classmethod
    def by(cls, name: str, config: str | None = None) -> "DatasetFacts":
        """Read the card of a dataset, ours or another.

        Args:
            name: a folder or a Hub id.
            config: its configuration; None: the default one.
        """
        folder = Path(name)
        hub_id = None if folder.exists() else name
        title = (
            name if hub_id else folder.resolve().name
        )  # cards are shown to others, whom the folders above it tell nothing
        try:
            card = DatasetCard.load(name) if hub_id else DatasetCard((folder / "README.md").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, EntryNotFoundError) as error:
            if not _is_absent(error):
                reason = " ".join(str(error).split())
                logger.warning(
                    "%s: its card cannot be read (%s), so its licence, telescope, known problems and citation will be missing "
                    "from cards of models, and its rendering from models",
                    name, reason,
                )  # fmt: skip
            return cls(title, hub_id=hub_id)
        telescope = re.search(r"^\| telescope \| (.+) \|$", card.text, re.MULTILINE)
        citation = re.search(r"```bibtex\n(.*?)```", card.text, re.DOTALL)
        stated = card.data.license
        return cls(
            card.data.pretty_name or title,
            stated if isinstance(stated, str) and stated != "unknown" else None,
            hub_id,
            telescope and telescope[1],
            card_section(card.text, "Known problems") or None,
            citation and citation[1].strip(),
            _rendering(name, card.data.to_dict().get("rendering"), config),
        )


def _rendering(name: str, stated: Any, config: str | None) -> dict[str, Any] | None:
    """What a card states of the rendering of its pictures; None if it is no such thing, which only cards of others can be."""
    try:
        rendering = Rendering.of(stated) if stated else None
    except (BadInput, AttributeError, TypeError, ValueError) as error:
        logger.warning("%s: its card states a rendering that is unknown here (%s), and that is not used", name, error)
        return None
    if rendering is None:
        return None
    return (rendering.whole if config == NATIVE else rendering).to_dict()


def _is_absent(error: Exception) -> bool:
    """Whether there is no card, in contrast to a Hub that does not answer, or denies access."""
    if isinstance(error, RepositoryNotFoundError):
        return error.response.status_code == 404  # a private or gated repository answers 401 or 403
    absent = (EntryNotFoundError, FileNotFoundError, NotADirectoryError, HFValidationError)
    return isinstance(error, absent) and not isinstance(error, LocalEntryNotFoundError)
