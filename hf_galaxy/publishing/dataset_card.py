"""The card of a dataset, from text by its authors, the decision tree and the statistics of the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image, ImageDraw

from hf_galaxy import safe_text
from hf_galaxy.data.card_facts import card_section
from hf_galaxy.data.pictures import open_picture, to_rgb
from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.writer import Config
from hf_galaxy.publishing.tree_drawing import describe_tree, draw_trees

TEMPLATE = Path(__file__).parent / "templates" / "dataset_card.md.jinja"
CONTACT_SHEET = "contact_sheet.jpg"
COMMON_TAGS = ["galaxy zoo", "astronomy", "galaxies"]
SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]


@dataclass(frozen=True)
class Prose:
    """The description of a dataset by its authors: header and text of `dataset_cards/*/card.md`.

    Attributes:
        title: name of the dataset.
        license: identifier of huggingface.co/docs/hub/repositories-licenses.
        trees: campaigns of the votes.
        telescope: of the pictures.
        hub_ids: Hub ids of the dataset, or of the datasets that it was made from.
        arxiv: numbers of the papers that describe it.
        tasks, tags: for the Hub, in addition to the common tags.
        annotations: crowdsourced, expert-generated or machine-generated; None: unknown.
        source: address of the original.
        text: Markdown: a summary, then `## Where it comes from`, `## Known problems`, `## Citation`.
    """

    title: str
    license: str = "unknown"
    trees: list[str] = field(default_factory=list)
    telescope: str | None = None
    hub_ids: list[str] = field(default_factory=list)
    arxiv: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=lambda: ["image-classification", "image-feature-extraction"])
    tags: list[str] = field(default_factory=list)
    annotations: str | None = None
    source: str | None = None
    text: str = ""

    @classmethod
    def load(cls, path: Path) -> Prose:
        """Read a card.md.

        Raises:
            BadInput: the file cannot be read, has no header, or has an unknown key.
        """
        try:
            _, header, text = path.read_text(encoding="utf-8").split("---\n", 2)
            prose = cls(**yaml.safe_load(header), text=text.strip())
            for name in ("trees", "hub_ids", "arxiv", "tasks", "tags"):
                value = getattr(prose, name)
                if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                    raise ValueError(f"{name} must be a list of texts; put numbers into quotes")
            return prose
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise BadInput(
                f"--card {path}: is not a text with a header like those in dataset_cards/ ({reason})"
            ) from error

    @property
    def summary(self) -> str:
        """The text before the first heading."""
        return self.text.split("\n## ", 1)[0]

    def section(self, heading: str) -> str:
        """The text under a heading; "" if there is no such heading."""
        return card_section(self.text, heading)


def write_card(
    folder: Path,
    prose: Prose,
    tree: DecisionTree | None,
    statistics: dict[str, Any] | None = None,
    configs: dict[str, Config] | None = None,
    name: str = "path/or/hub-id",
) -> None:
    """Write README.md and the figures that it shows, except the contact sheet.

    Args: as of `dataset_card`.
    """
    figures = draw_trees(tree, statistics and statistics["votes"]) if tree else {}
    for campaign, figure in figures.items():
        (folder / f"tree_{campaign}.png").write_bytes(figure)
    sheet = (folder / CONTACT_SHEET).exists()
    (folder / "README.md").write_text(dataset_card(prose, tree, statistics, configs, name, sheet), encoding="utf-8")


def dataset_card(
    prose: Prose,
    tree: DecisionTree | None,
    statistics: dict[str, Any] | None = None,
    configs: dict[str, Config] | None = None,
    name: str = "path/or/hub-id",
    sheet: bool = False,
) -> str:
    """README.md of a dataset; its YAML is for `load_dataset`.

    Args:
        tree: decision tree of the votes.
        statistics: the content of statistics.json, of which `notes`, `command` and `rendering` may be missing; None: the card has
            "not measured" instead of numbers.
        configs: the configurations; None: the data are not in this folder.
        name: the folder or Hub id from which a reader loads the dataset.
        sheet: show the contact sheet.
    """
    galaxies = sum(statistics["galaxies"].values()) if statistics else None
    data = DatasetCardData(
        pretty_name=prose.title, license=prose.license, language=["en"], task_categories=prose.tasks,
        annotations_creators=[prose.annotations] if prose.annotations else None,
        tags=list(dict.fromkeys([*COMMON_TAGS, *prose.tags, *(f"arxiv:{number}" for number in prose.arxiv)])),
        size_categories=None if galaxies is None else [next(name for edge, name in SIZES if galaxies < edge)],
        rendering=(statistics or {}).get("rendering"),
    )  # fmt: skip
    if configs:
        _add_configs(data, configs)
    campaigns = []
    parts = (
        [DecisionTree(name, tuple(tree.questions[q] for q in which)) for name, which in tree.campaigns.items()]
        if tree
        else []
    )
    for part in parts:
        text = "; ".join(line.strip() for line in describe_tree(part).splitlines())
        campaigns.append((part.name, text, [table_row(question, statistics) for question in part.questions]))
    return str(
        DatasetCard.from_template(
            data, template_path=str(TEMPLATE), prose=prose, galaxies=galaxies, statistics=statistics, configs=configs or {},
            campaigns=campaigns, notes=(statistics or {}).get("notes", []), command=safe_text.fenced((statistics or {}).get("command", "")),
            sheet=CONTACT_SHEET if sheet else None, name=name, markdown=safe_text.markdown, code=safe_text.code,
            prose_of=safe_text.prose,
        )
    )  # fmt: skip


def _add_configs(data: DatasetCardData, configs: dict[str, Config]) -> None:
    """Add the YAML for `load_dataset`: features, splits, sizes and files of each configuration."""
    infos = {
        name: DatasetInfo(
            features=config.features,
            splits=SplitDict(config.splits),
            download_size=config.download_size,
            dataset_size=sum(split.num_bytes for split in config.splits.values()),
        )
        for name, config in configs.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(data)
    everything = configs["default"].features
    entries = {
        name: {"data_files": [{"split": split, "path": patterns} for split, patterns in config.files.items()]}
        | ({} if config.features == everything else {"columns": list(config.features)})
        | ({"default": True} if name == "default" else {})
        for name, config in configs.items()
    }
    MetadataConfigs(entries).to_dataset_card_data(data)


def table_row(question: Question, statistics: dict[str, Any] | None) -> str:
    """The row of a question in the table of votes."""
    if statistics is None:
        return " | ".join([f"| {question.name}", *["not measured"] * 3, f"{', '.join(question.answers)} |"])
    votes = [statistics["votes"][column] for column in question.columns]
    counts = statistics["questions"][question.name]
    shares = ", ".join(f"{safe_text.markdown(a)}: {n:,}" for a, n in zip(question.answers, votes, strict=True))
    numbers = (sum(votes), counts["galaxies_asked"], counts["with_enough_votes"])
    return " | ".join([f"| {question.name}", *(f"{number:,}" for number in numbers), f"{shares} |"])


def contact_sheet(rows: Iterable[dict[str, Any]], caption: str, columns: int = 8, side: int = 144) -> Image.Image:
    """The pictures of rows side by side, each above its value in the column `caption`."""
    rows = list(rows)
    sheet = Image.new("RGB", (columns * side, -(-len(rows) // columns) * (side + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        x, y = i % columns * side, i // columns * (side + 16)
        picture = to_rgb(open_picture(row["image"]["bytes"]))
        sheet.paste(picture.resize((side - 2, side - 2), Image.Resampling.BICUBIC), (x, y))
        pen.text((x + 2, y + side), safe_text.visible(str(row[caption]))[: side // 6], fill="black")
    return sheet
