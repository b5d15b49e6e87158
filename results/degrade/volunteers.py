"""How real volunteers drift with distance, by the published debiasing of Galaxy Zoo 2: observed fractions less those that it says would be at low redshift.

python results/degrade/volunteers.py gz2_hart/votes.csv tables/gz2_stripe82_coadd_votes_table5.csv.gz OUT.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hf_galaxy import load_tree
from hf_galaxy.evaluation.bootstrap import estimate_of
from hf_galaxy.evaluation.drift import Answers, weights_of
from hf_galaxy.randomness import key_of

COLUMNS = json.loads(Path("dataset_cards/gz2_hart/columns.json").read_text())["fractions"]["questions"]


def drifts(table: pd.DataFrame) -> dict:
    """Mean observed less mean debiased fraction of each answer, with an interval; a question weighs as much as it is asked, as observed."""
    tree = load_tree("gz2")
    answers = Answers.of_tree(tree)
    names = [COLUMNS[question.name][answer] for question in tree.questions for answer in question.answers]
    observed, debiased = (
        table[[name.replace("weighted_fraction", kind) for name in names]].to_numpy(float)
        for kind in ("weighted_fraction", "debiased")
    )
    often = weights_of(np.array([key_of(str(name)) for name in table["objid"]]), 200)
    asked = answers.asked(np.nan_to_num(observed))[:, answers.question_of]
    known = np.isfinite(observed) & np.isfinite(debiased)
    weight = (asked * known).T @ often
    difference = (asked * np.where(known, observed - debiased, 0)).T @ often / np.maximum(weight, 1e-9)
    share = asked.mean(axis=0)
    return {
        name: estimate_of(row[0], row[1:]) | {"asked": round(float(often), 4)}
        for name, row, often in zip(answers.columns, difference, share, strict=True)
    }


def main(hart: str, stripe: str, out: str) -> None:
    record = {"hart": drifts(pd.read_csv(hart)), "stripe82": drifts(pd.read_csv(stripe))}
    Path(out).write_text(json.dumps(record))
    for name in record["hart"]:
        print(name, *(f"{100 * record[k][name]['value']:+.1f} ({record[k][name]['asked']:.2f})" for k in record))


if __name__ == "__main__":
    main(*sys.argv[1:])
