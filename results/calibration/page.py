"""What a calibration changes: a page of losses and coverage before and after, on four surveys, and for surveys that a run has not seen.

    python results/calibration/page.py

Writes README.md (with the words of page.md.jinja) from records.parquet and transfer.json.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.files import whole_file
from hf_galaxy.reports.records_file import FILE, read_records
from hf_galaxy.reports.text import render, table

HERE = Path(__file__).parent
SURVEYS = {"ceers": "CEERS", "gz2_votes": "gz2_votes", "gz2_hart": "gz2_hart", "mock": "drawn"}
HEADS = {
    "mixture": "two Dirichlets, softplus(x) + 0.01 each",
    "softplus": "softplus(x) + 0.01",
    "sigmoid": "1 + 100 sigmoid(x)",
}
LEVEL, GOAL = "90", (0.88, 0.92)
FEWEST = 100  # test galaxies of a question

Runs = dict[tuple[str, str], list[dict[str, Any]]]  # (survey, head) -> the records of its folds


def runs_of(records: dict[str, dict]) -> Runs:
    runs: Runs = {}
    for record in records.values():
        settings = record["settings"]
        runs.setdefault((Path(settings["dataset"][0]).name, settings["head_activation"]), []).append(record)
    return runs


def losses(runs: Runs) -> str:
    """Rows are surveys and heads: the test loss before and after, its gain, and the gain that validation galaxies foretell."""
    rows = []
    for (survey, head), records in in_order(runs):
        tests = [record["results"]["test"] for record in records]
        before = [test["calibration"].get("uncalibrated", {}).get("loss", test["loss"]["model"]) for test in tests]
        after = [test["loss"]["model"] for test in tests]
        foretold = [record["training"]["calibration"]["gain"] for record in records]
        gains = np.subtract(before, after)
        rows.append(
            [
                SURVEYS[survey], HEADS[head], len(records), f"{np.mean(before):.2f}", f"{np.mean(after):.2f}",
                f"{np.mean(gains):+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains)})", f"{np.mean(foretold):+.2f}",
            ]
        )  # fmt: skip
    return table(["survey", "head", "folds", "loss before", "after", "gain (of each fold)", "foretold"], rows)


def in_order(runs: Runs) -> list[tuple[tuple[str, str], list[dict]]]:
    return [((survey, head), runs[survey, head]) for head in HEADS for survey in SURVEYS if (survey, head) in runs]


def covered(records: list[dict]) -> dict[str, tuple[int, float, float]]:
    """Question -> test galaxies of all folds, and the coverage before and after, of those with FEWEST in a fold."""
    questions: dict[str, list[tuple[int, float, float]]] = {}
    for record in records:
        test = record["results"]["test"]
        before = test["calibration"].get("uncalibrated", test["calibration"])["questions"]
        for name, figures in test["calibration"]["questions"].items():
            galaxies = test["questions"][name]["galaxies_asked"]
            if galaxies >= FEWEST:
                pair = before[name]["coverage"][LEVEL], figures["coverage"][LEVEL]
                questions.setdefault(name, []).append((galaxies, *pair))
    means = {}
    for name, folds in questions.items():
        galaxies, *pairs = np.array(folds).T
        means[name] = (int(galaxies.sum()), *(float(galaxies @ each / galaxies.sum()) for each in pairs))
    return means


def goals(runs: Runs) -> str:
    """Rows are surveys and heads: how many questions have a coverage within the goal, and the lowest and highest coverage."""
    rows = []
    for (survey, head), records in in_order(runs):
        questions = covered(records)
        row = [SURVEYS[survey], HEADS[head], len(questions)]
        for which in (1, 2):
            shares = [question[which] for question in questions.values()]
            row.append(
                f"{sum(GOAL[0] <= round(share, 3) <= GOAL[1] for share in shares)}: {min(shares):.1%} to {max(shares):.1%}"
            )
        rows.append(row)
    return table(["survey", "head", "questions", "within 88 to 92 %, before: lowest to highest", "after"], rows)


def questions(runs: Runs) -> str:
    rows = [
        [SURVEYS[survey], name, galaxies, f"{before:.1%}", f"{after:.1%}"]
        for survey in SURVEYS
        for name, (galaxies, before, after) in covered(runs[survey, "mixture"]).items()
    ]
    return table(["survey", "question", "test galaxies", "before", "after"], rows)


def transfers(results: list[dict]) -> str:
    """Rows are heads, pairs of surveys, and numbers of galaxies."""
    rows = []
    for pair in results:
        names = HEADS[pair["head"]], SURVEYS[pair["trained"]], SURVEYS[pair["survey"]]
        rows.append([*names, "none", f"{min(pair['before']):.1%} to {max(pair['before']):.1%}", "", "", ""])
        for drawn in pair["draws"]:
            shares = drawn["after"]
            rows.append(
                [
                    *names, drawn["count"], f"{min(shares):.1%} to {max(shares):.1%}", f"{min(drawn['low']):.1%} to {max(drawn['high']):.1%}",
                    f"{drawn['gain']:+.2f} ({drawn['worst_gain']:+.2f})", f"{drawn['foretold']:+.2f}",
                ]
            )  # fmt: skip
    header = [
        "head",
        "trained on",
        "calibrated for",
        "galaxies",
        "coverage of questions",
        "in 90 % of draws",
        "gain (the worst draw)",
        "foretold",
    ]
    return table(header, rows)


def page_of(records: dict[str, dict], transfer: dict[str, Any]) -> str:
    """README.md"""
    runs = runs_of(records)
    return render(
        HERE / "page.md.jinja", runs=len(records), losses=losses(runs), goals=goals(runs), questions=questions(runs),
        transfers=transfers(transfer["results"]), draws=transfer["draws"], findings=transfer,
    )  # fmt: skip


def main() -> None:
    transfer = json.loads((HERE / "transfer.json").read_text())
    with whole_file(HERE / "README.md") as partial:
        partial.write_bytes(page_of(read_records(HERE / FILE), transfer).encode())


if __name__ == "__main__":
    main()
