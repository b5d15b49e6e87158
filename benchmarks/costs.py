"""What predictions of a whole survey take: hours of a core or a GPU, and bytes, from rates that were measured.

python benchmarks/costs.py                          the tables of docs/howto/costs.md, from benchmarks/predictions.json
python benchmarks/costs.py --rate 2500 --price 1.8  of a machine of yours: galaxies/s that predict shows, and what an hour costs
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput

RECORD = Path(__file__).parent / "predictions.json"
SURVEYS = {8_700_000: "8.7 million (GZ DESI)", 1_500_000_000: "1.5 billion (Euclid)", 10_000_000_000: "10 billion"}
WAYS = {"hf_galaxy": "torch", "hf_galaxy, --runtime onnx": "ONNX Runtime"}
UNITS = {1e15: "PB", 1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Print tables of costs, in Markdown."""

    record: Path = RECORD
    """What predictions.py --record has written."""
    galaxies: tuple[int, ...] = tuple(SURVEYS)
    """Galaxies of the surveys."""
    rate: float | None = None
    """Galaxies that a machine of yours predicts in a second; without it the tables are those of the record."""
    price: float | None = None
    """What an hour of that machine costs, in any currency."""

    def check(self) -> None:
        """Refuse what no survey and no machine has."""
        if min(self.galaxies) < 1 or (self.rate is not None and self.rate <= 0):
            raise BadInput("--galaxies and --rate must be more than 0")
        if self.price is not None and self.rate is None:
            raise BadInput("--price: is of an hour of the machine whose --rate you give")


def rounded(number: float) -> str:
    """To two digits: 0.72, 12, 1,300."""
    return f"{float(f'{number:.2g}'):,.12g}"


def in_bytes(number: float) -> str:
    """1.3 TB."""
    for unit, name in UNITS.items():
        if number >= unit:
            return f"{rounded(number / unit)} {name}"
    return f"{number:.0f} bytes"


def table(columns: list[str], rows: list[list[str]], texts: int) -> str:
    """Markdown, whose first columns are texts."""
    lines = [columns, ["---"] * texts + ["---:"] * (len(columns) - texts), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(record: dict, galaxies: tuple[int, ...]) -> str:
    """Core hours of each way of the record that is ours."""
    rows = []
    for each in record["seconds_of_a_galaxy"]:
        if each["way"] in WAYS:
            seconds = median(each["seconds"])
            hours = [rounded(number * seconds / 3600) for number in galaxies]
            rows.append([each["backbone"], str(each["px"]), WAYS[each["way"]], rounded(1000 * seconds), *hours])
    return table(["backbone", "px", "runtime", "ms of a core", *map(survey, galaxies)], rows, 3)


def sizes(record: dict, galaxies: tuple[int, ...]) -> str:
    """Bytes on the disk."""
    found = record["bytes_of_a_galaxy"]
    answers, features = found["answers of the run"], found["features of the run"]
    names = {
        "picture": f"a JPEG of {record['side']} pixels",
        "predictions": f"predictions, {answers} answers: their fractions and concentrations",
        "intervals and answers": "`--credible 0.9 --answers`, further",
        "embedding, float32": f"`--embeddings`, {features} features, further",
        "embedding, float16": "the same with `--embeddings-dtype float16`",
    }
    rows = [[text, in_bytes(found[name]), *(in_bytes(number * found[name]) for number in galaxies)] for name, text in names.items()]  # fmt: skip
    return table(["", "a galaxy", *map(survey, galaxies)], rows, 1)


def survey(galaxies: int) -> str:
    """Its name, or its number of galaxies."""
    return SURVEYS.get(galaxies, f"{galaxies:,}")


def main(settings: Settings) -> None:
    settings.check()
    if settings.rate is None:
        record = json.loads(settings.record.read_text(encoding="utf-8"))
        print(f"{times(record, settings.galaxies)}\n\n{sizes(record, settings.galaxies)}")
        return
    for galaxies in settings.galaxies:
        hours = galaxies / settings.rate / 3600
        cost = f", {rounded(hours * settings.price)} to pay" if settings.price is not None else ""
        print(f"{survey(galaxies)}: {rounded(hours)} hours{cost}")


if __name__ == "__main__":
    Command(Settings, main)()
