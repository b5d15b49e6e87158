"""Which head predicts votes best: a page of the differences between five heads, as linear probes and after finetuning.

    python results/vote_heads/page.py

Writes README.md (with the words of page.md.jinja) from records.parquet.
"""

from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws
from hf_galaxy.files import whole_file
from hf_galaxy.reports.records_file import FILE, read_records
from hf_galaxy.reports.text import interval, render, table

HERE = Path(__file__).parent
SURVEYS = {"ceers": "CEERS", "gz2_votes": "gz2_votes", "gz2_hart": "gz2_hart", "mock": "drawn"}
HEADS = {
    "sigmoid": "1 + 100 sigmoid(x), as in Zoobot",
    "exp": "exp(x)",
    "precision": "softmax(x) (softplus(s) + 0.01)",
    "softplus": "softplus(x) + 0.01",
    "mixture": "two Dirichlets, softplus(x) + 0.01 each",
}
KINDS = ("probe", "finetune")
LEVEL = "90"  # of intervals of votes, in per cent
CALIBRATED = ("sigmoid", "softplus", "mixture")
FEWEST = 100  # test galaxies of a seed that were asked a question, of which a coverage says something


class Point:
    """The loss of one run on its test galaxies, and in the (R,) replicates of a bootstrap over them."""

    def __init__(self, test: dict[str, Any]) -> None:
        self.test, self.loss = test, test["loss"]["model"]
        self.replicates = np.array(test["bootstrap"]["loss"]["model"], float)


Points = dict[tuple[str, str, str], dict[int, Point]]  # (kind, survey, head) -> seed -> its run


def points_of(records: dict[str, dict], results: str = "test") -> Points:
    """Of the models as they were trained ("test"), or calibrated on the validation galaxies ("calibrated"), which not all were."""
    points: Points = {}
    for name, record in records.items():
        if results not in record["results"]:
            continue
        kind, settings = Path(name).parts[-3], record["settings"]
        survey = Path(settings["dataset"][0]).name
        points.setdefault((kind, survey, settings["head_activation"]), {})[settings["seed"]] = Point(
            record["results"][results]
        )
    return points


def calibrated(points: Points, kind: str) -> str:
    """The losses of three heads after the calibration, and what a mixture adds to one distribution."""
    rows = [
        [HEADS[head], *(f"{np.mean([p.loss for p in points[kind, survey, head].values()]):.2f}" for survey in SURVEYS)]
        for head in CALIBRATED
    ]
    more = (difference(points, kind, survey, "softplus", "mixture") for survey in SURVEYS)
    return table(["head", *SURVEYS.values()], [*rows, ["two Dirichlets less one, both softplus", *more]])


def coverages(points: Points, kind: str) -> str:
    """Rows are heads: the least and the largest coverage of a question, of those with enough test galaxies, all seeds together."""
    rows = []
    for head in CALIBRATED:
        row = [HEADS[head]]
        for survey in SURVEYS:
            runs = [point.test for point in points[kind, survey, head].values()]
            shares = []
            for name in runs[0]["questions"]:
                asked = np.array([run["questions"][name]["galaxies_asked"] for run in runs])
                held = [run["calibration"]["questions"][name]["coverage"][LEVEL] for run in runs]
                if asked.min() >= FEWEST:
                    shares.append(float(asked @ np.array(held) / asked.sum()))
            row.append(f"{min(shares):.0%} to {max(shares):.0%}, {len(shares)} questions")
        rows.append(row)
    return table(["head", *SURVEYS.values()], rows)


def losses(points: Points, kind: str) -> str:
    """Rows are heads: the loss of each survey, and beside it its difference from the sigmoid's with the same seeds; then what a mixture adds."""
    rows = [["the constant prediction", *(f"{constant(points, kind, survey):.2f}" for survey in SURVEYS)]]
    for head, title in trained(points, kind).items():
        rows.append([title, *(cell(points, kind, survey, head) for survey in SURVEYS)])
    rows.append(
        [
            "two Dirichlets less one, both softplus",
            *(difference(points, kind, survey, "softplus", "mixture") for survey in SURVEYS),
        ]
    )
    return table(["head", *SURVEYS.values()], rows)


def difference(points: Points, kind: str, survey: str, before: str, after: str) -> str:
    """By how much another head changes the loss, with the seeds that both have."""
    parts = [points[kind, survey, head] for head in (before, after)]
    (old, new), draws, _ = mean_and_draws(parts, "vote heads", kind, survey, before, after)
    return interval(estimate_of(new - old, draws[1] - draws[0]), lambda value: f"{value:+.2f}")


def trained(points: Points, kind: str) -> dict[str, str]:
    """The titles of the heads that have runs of this kind."""
    return {head: title for head, title in HEADS.items() if any(key[0] == kind and key[2] == head for key in points)}


def constant(points: Points, kind: str, survey: str) -> float:
    return float(np.mean([point.test["loss"]["baseline"] for point in points[kind, survey, "sigmoid"].values()]))


def cell(points: Points, kind: str, survey: str, head: str) -> str:
    if (kind, survey, head) not in points:
        return "-"
    runs = points[kind, survey, head]
    mean = f"{np.mean([point.loss for point in runs.values()]):.2f}"
    if len(runs) < len(points[kind, survey, "sigmoid"]):
        mean += f" ({len(runs)} seed)"
    if head == "sigmoid":
        return mean
    return f"{mean}: {difference(points, kind, survey, 'sigmoid', head)}"


def single(points: Points) -> str:
    """The losses of linear probes with one Dirichlet distribution for each question, also in place of a mixture."""
    rows = []
    for head, loss in (("softplus", "model"), ("mixture", "single")):
        runs = [points["probe", survey, head].values() for survey in SURVEYS]
        rows.append([HEADS[head], *(f"{np.mean([run.test['loss'][loss] for run in each]):.2f}" for each in runs)])
    return table(["head", *SURVEYS.values()], rows)


def counted(points: Points, kind: str) -> str:
    """Rows are heads: the questions better than their constant, of all; and the coverage of intervals of the root question."""
    rows = []
    for head, title in trained(points, kind).items():
        row = [title]
        for survey in SURVEYS:
            runs = [point.test for point in points.get((kind, survey, head), {}).values()]
            if not runs:
                row.append("-")
                continue
            names = list(runs[0]["questions"])
            better = sum(mean_of(runs, name, "model") < mean_of(runs, name, "baseline") for name in names)
            covered = np.mean([test["calibration"]["questions"][names[0]]["coverage"][LEVEL] for test in runs])
            row.append(f"{better} of {len(names)}; {covered:.0%}")
        rows.append(row)
    return table(["head", *SURVEYS.values()], rows)


def mean_of(runs: list[dict], question: str, who: str) -> float:
    """The mean over seeds of the loss of a question, which may have no test galaxy in one."""
    values = [test["questions"][question]["nll"][who] for test in runs]
    return float(np.mean([value for value in values if value is not None]))


def page_of(records: dict[str, dict]) -> str:
    """README.md"""
    points, after = points_of(records), points_of(records, "calibrated")
    galaxies = {
        survey: next(r for r in records.values() if r["settings"]["dataset"] == [f"data/{survey}"])["dataset"][
            "splits"
        ]["train"]
        for survey in SURVEYS
    }
    return render(
        HERE / "page.md.jinja", runs=len(records), galaxies=galaxies,
        single=single(points), calibrated={kind: calibrated(after, kind) for kind in KINDS},
        coverages={kind: coverages(after, kind) for kind in KINDS},
        losses={kind: losses(points, kind) for kind in KINDS}, counted={kind: counted(points, kind) for kind in KINDS},
    )  # fmt: skip


def main() -> None:
    with whole_file(HERE / "README.md") as partial:
        partial.write_bytes(page_of(read_records(HERE / FILE)).encode())


if __name__ == "__main__":
    main()
