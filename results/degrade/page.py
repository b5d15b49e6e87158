"""Would the answers change farther away? A page of the drift that `hf-galaxy degrade` measured on real galaxies, and of what it can be compared with.

    python results/degrade/page.py

Writes README.md (with the words of page.md.jinja) and the figures from records.parquet. With the folders of the commands on the page, which are measured again,
`page.py gz2=FOLDER ceers=FOLDER drawn=drawn.json volunteers=volunteers.json` first writes the records.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pyarrow import concat_tables
from pyarrow.parquet import read_table

from hf_galaxy import load_tree
from hf_galaxy.evaluation.drift import Answers
from hf_galaxy.evaluation.drift_measurement import StepDrift
from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.drift_report import Drift, figure_of, plain, points, share
from hf_galaxy.reports.page import write_page
from hf_galaxy.reports.records_file import FILE, read_records, write_records
from hf_galaxy.reports.text import render, table

HERE = Path(__file__).parent
TREES = {"gz2": "gz2", "ceers": "gz_jwst_ceers"}
STEP = 2  # that the tables show: twice as far away
LEAST_ASKED = 0.05  # of volunteers, of whom there are many
FARTHER = "drawn farther away"


def drift_of(record: Mapping, tree: str) -> Drift:
    """What the command measured, from its drift.json."""
    steps = record["steps"]
    held = load_tree(tree).held_by([plain(row["answer"]) for row in steps[0]["answers"]])
    assert held is not None
    return Drift(
        record["axis"], record["reference"], tuple(step["place"] for step in steps), tuple(step["name"] for step in steps), Answers.of_tree(held),
        tuple(StepDrift(step["galaxies"], step["answers"], step["questions"], []) for step in steps), tuple(step["left_out"] for step in steps),
        record["how"],
    )  # fmt: skip


def drifts_of(record: Mapping) -> str:
    """A table of the answers to often asked questions: the original mean, and the drift at each step."""
    steps = record["steps"]
    often = {row["question"] for row in steps[0]["questions"] if row["asked_original"] >= 0.1}
    rows = [
        [plain(row["answer"]), f"{100 * row['mean_original']:.1f}", *(points(step["answers"][a], "drift") for step in steps)]
        for a, row in enumerate(steps[0]["answers"]) if row["question"] in often
    ]  # fmt: skip
    return table(["answer", "original, %", *(f"{step['place']:g} times" for step in steps)], rows)


def questions_of(record: Mapping) -> str:
    """What happens to the questions twice as far away."""
    step = next(each for each in record["steps"] if each["place"] == STEP)
    rows = [
        [row["question"], f"{100 * row['asked_original']:.1f}", points(row, "asked_drift"), share(row, "changed"), share(row, "no_longer_asked") if row["was_asked"] >= 20 else "-"]
        for row in step["questions"] if row["asked_original"] >= 0.1
    ]  # fmt: skip
    return table(["question", "asked, %", "drift of asked", "another answer is largest", "no longer asked"], rows)


def held_out_of(records: Mapping[str, Mapping]) -> str:
    """How corrections do for galaxies held out."""
    rows = []
    for name in TREES:
        for step in records[name]["steps"]:
            own = [row for row in step["answers"] if row["error_after"] is not None]
            before, after = (100 * np.mean([abs(row[key]) for row in own]) for key in ("error_before", "error_after"))
            folds, held = (sum(row[key] for row in own) for key in ("folds", "folds_held"))
            single = 100 * np.mean([row["single_held"] for row in own])
            rows.append(
                [
                    name,
                    f"{step['place']:g}",
                    len(own),
                    f"{before:.1f}",
                    f"{after:.2f}",
                    f"{100 * held / folds:.0f} % of {folds}",
                    f"{single:.0f} %",
                ]
            )
    return table(
        [
            "galaxies",
            "times",
            "answers",
            "off before",
            "off after",
            "interval of a mean holds",
            "interval of a galaxy holds",
        ],
        rows,
    )


def matrix_of(drawn: Mapping, name: str) -> np.ndarray:
    """(steps, A) drifts."""
    return np.array(
        [[row[0] for row in drawn["drifts"][f"{name} x{distance:g}"].values()] for distance in drawn["distances"]]
    )


def often_of(drawn: Mapping) -> np.ndarray:
    """(A,) whether the question of an answer is asked of a tenth or more."""
    tree = load_tree("gz2").held_by([plain(name) for name in next(iter(drawn["drifts"].values()))])
    assert tree is not None
    return np.array([drawn["asked"][tree.questions[q].name] >= 0.1 for q in tree.question_of_answer])


def drawn_of(drawn: Mapping) -> str:
    """Degraded JPEGs against the same galaxies drawn farther away."""
    often, truth = often_of(drawn), matrix_of(drawn, FARTHER)
    rows = []
    for name in drawn["assumed"]:
        own = matrix_of(drawn, name)
        for d, distance in enumerate(drawn["distances"]):
            ours, true = own[d, often], truth[d, often]
            slope = (ours @ true) / (true @ true)
            rows.append([
                name, f"{distance:g}", f"{100 * np.sqrt(np.mean(true**2)):.1f}", f"{100 * np.sqrt(np.mean((ours - true) ** 2)):.1f}", f"{slope:.2f}",
                f"{np.corrcoef(ours, true)[0, 1]:.2f}", f"{drawn['correlation_of_featured'][f'{name} x{distance:g}']:.2f}",
            ])  # fmt: skip
    return table(
        [
            "light is taken from 8 bits by",
            "times",
            "true drift, RMS",
            "error, RMS",
            "drift / true",
            "correlation over answers",
            "over galaxies (featured)",
        ],
        rows,
    )


def of_volunteers(records: Mapping[str, Mapping], which: str) -> list[tuple[str, dict, dict]]:
    """For each answer to an often asked question: its name, the drift of volunteers, and that of the model twice as far away."""
    step = next(each for each in records["gz2"]["steps"] if each["place"] == STEP)
    model = {row["answer"]: row for row in step["answers"]}
    return [
        (plain(name), theirs, model[name])
        for name, theirs in records["volunteers"][which].items()
        if name in model and theirs["asked"] >= LEAST_ASKED
    ]


def volunteers_of(records: Mapping[str, Mapping]) -> str:
    """The published debiasing against the model."""
    stripe = {name: theirs for name, theirs, _ in of_volunteers(records, "stripe82")}
    rows = [
        [name, _estimate(theirs), _estimate(stripe[name]) if name in stripe else "-", points(ours, "drift")]
        for name, theirs, ours in of_volunteers(records, "hart")
    ]
    return table(
        ["answer", "volunteers, 1,000 of Hart et al.", "volunteers, Stripe 82 coadds", "model, twice as far"], rows
    )


def _estimate(theirs: Mapping) -> str:
    return points({"drift": theirs["value"], "drift_low": theirs["low"], "drift_high": theirs["high"]}, "drift")


def agreement(records: Mapping[str, Mapping], which: str) -> tuple[int, int, float]:
    """Of the answers whose drift both show: how many have the same sign, of how many; and the correlation over all answers."""
    both = of_volunteers(records, which)
    clear = [
        theirs["value"] * ours["drift"] > 0 for _, theirs, ours in both
        if theirs["low"] * theirs["high"] > 0 and ours["drift_low"] * ours["drift_high"] > 0
    ]  # fmt: skip
    values = np.array([(theirs["value"], ours["drift"]) for _, theirs, ours in both])
    return sum(clear), len(clear), float(np.corrcoef(values.T)[0, 1])


def comparison_figure(records: Mapping[str, Mapping]) -> Figure:
    """Left: degraded against drawn farther away; right: the model against volunteers."""
    drawn, often = records["drawn"], often_of(records["drawn"])
    truth, ours = (100 * matrix_of(drawn, name)[:, often] for name in (FARTHER, drawn["assumed"][0]))
    both = of_volunteers(records, "hart")
    with charts.style():
        figure, (left, right) = charts.chart(2, 3.4)
        for d, distance in enumerate(drawn["distances"]):
            left.plot(truth[d], ours[d], charts.MARKERS[d], color=charts.COLORS[d], ms=4, label=f"{distance:g} times")
        for _, theirs, own in both:
            x = 100 * theirs["value"]
            right.vlines(x, 100 * own["drift_low"], 100 * own["drift_high"], color=charts.COLORS[3], lw=0.8)
            right.hlines(100 * own["drift"], 100 * theirs["low"], 100 * theirs["high"], color=charts.COLORS[3], lw=0.8)
            right.plot([x], [100 * own["drift"]], "D", color=charts.COLORS[3], ms=4)
            if abs(x) > 9.5 or abs(own["drift"]) > 0.2:
                right.annotate(
                    _short(own["answer"]),
                    (x, 100 * own["drift"]),
                    (3, 3),
                    textcoords="offset points",
                    fontsize=6.5,
                    color=charts.GREY,
                )
        for axes, xlabel, ylabel in (
            (left, "drawn farther away, points", "degraded JPEG, points"),
            (right, "volunteers: observed less debiased, points", "model, twice as far, points"),
        ):
            ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
            axes.plot(ends, ends, "--", color=charts.GREY, lw=0.9, zorder=1)
            axes.axhline(0, color=charts.GRID, lw=0.8, zorder=0)
            axes.axvline(0, color=charts.GRID, lw=0.8, zorder=0)
            axes.set(xlabel=xlabel, ylabel=ylabel)
        handles = [
            charts.handle(f"drawn galaxies, {each:g} times", charts.COLORS[d], marker=charts.MARKERS[d], ms=4)
            for d, each in enumerate(drawn["distances"])
        ]
        handles.append(charts.handle("Galaxy Zoo 2, 90 %", charts.COLORS[3], marker="D", ms=4))
        picture = charts.png(figure, "Drift of answers, against the truth and against volunteers", handles)
    rows = [
        {"what": "volunteers", "answer": name, "x": theirs["value"], "y": ours["drift"]} for name, theirs, ours in both
    ]
    names = [name for name, own in zip(drawn["drifts"][f"{FARTHER} x{STEP}"], often, strict=True) if own]
    rows += [
        {"what": f"drawn x{distance:g}", "answer": plain(name), "x": truth[d, a] / 100, "y": ours[d, a] / 100}
        for d, distance in enumerate(drawn["distances"]) for a, name in enumerate(names)
    ]  # fmt: skip
    return Figure(
        "comparison",
        picture,
        charts.csv_text(rows),
        "Drift of degraded JPEGs against that of galaxies drawn farther away, and drift of the model against that of volunteers.",
    )


def _short(answer: str) -> str:
    question, _, name = plain(answer).rpartition("_")
    return f"{question.removesuffix('-gz2').replace('smooth-or-featured', '').replace('-', ' ')} {name.replace('-', ' ')}".strip()


def row_of(record: Mapping, answer: str, place: float = STEP) -> Mapping:
    """The numbers of an answer at a step."""
    step = next(each for each in record["steps"] if each["place"] == place)
    return next(row for row in step["answers"] if plain(row["answer"]) == answer)


def page_of(records: Mapping[str, Mapping]) -> str:
    """README.md"""
    values = {}
    for name, suffix in (("gz2", "gz2"), ("ceers", "jwst")):
        record, root = records[name], f"smooth-or-featured-{suffix}"
        featured = row_of(record, f"{root}_featured-or-disk")
        step = next(each for each in record["steps"] if each["place"] == STEP)
        first = next(row for row in step["questions"] if row["question"] == root)
        values[name] = {
            "galaxies": step["galaxies"], "featured": points(featured, "drift"), "from": f"{100 * featured['mean_original']:.1f} %",
            "to": f"{100 * featured['mean']:.1f} %", "changed": share(first, "changed"), "arms": points(row_of(record, f"has-spiral-arms-{suffix}_yes"), "drift"),
            "round": points(row_of(record, f"how-rounded-{suffix}_round"), "drift"), "drifts": drifts_of(record), "questions": questions_of(record),
        }  # fmt: skip
    rows = [row for name in TREES for step in records[name]["steps"] for row in step["answers"]]
    means = [
        np.mean([abs(row["error_after"]) for row in step["answers"] if row["error_after"] is not None])
        for name in TREES for step in records[name]["steps"]
    ]  # fmt: skip
    folds, held = (sum(row[key] for row in rows) for key in ("folds", "folds_held"))
    drawn, often = records["drawn"], often_of(records["drawn"])
    truth, default = (matrix_of(drawn, name)[:, often] for name in (FARTHER, drawn["assumed"][0]))
    column = "smooth-or-featured-gz2_featured-or-disk_fraction"
    return render(
        HERE / "page.md.jinja",
        off_after=f"{100 * max(means):.1f}", held=f"{100 * held / folds:.0f} %",
        slopes=_listed((truth * default).sum(1) / (truth**2).sum(1), 2), errors=_listed(100 * np.sqrt(((default - truth) ** 2).mean(1)), 1),
        truths=_listed(100 * np.sqrt((truth**2).mean(1)), 1),
        featured_drawn=[f"{100 * drawn['drifts'][f'{name} x{STEP}'][column][0]:+.1f}" for name in (FARTHER, *drawn["assumed"])], **values, held_out=held_out_of(records), drawn=drawn_of(records["drawn"]), drawn_galaxies=records["drawn"]["galaxies"],
        volunteers=volunteers_of(records), hart=agreement(records, "hart"), stripe82=agreement(records, "stripe82"),
        enlarged={name: f"{factor:.1f}" for name, factor in records["enlarged"].items()},
    )  # fmt: skip


def _listed(values: np.ndarray, digits: int) -> str:
    first = [f"{value:.{digits}f}" for value in values]
    return f"{', '.join(first[:-1])} and {first[-1]}"


def figures_of(records: Mapping[str, Mapping]) -> list[Figure]:
    """The drift on both surveys, and what it is compared with."""
    own = []
    for name, tree in TREES.items():
        figure = figure_of(drift_of(records[name], tree))
        own.append(Figure(f"drift-{name}", figure.png, figure.csv, figure.alt))
    return [*own, comparison_figure(records)]


def main(given: list[str]) -> None:
    if given:
        records: dict[str, dict] = {"enlarged": {}}
        for name, path in ((name, Path(path)) for name, path in (each.split("=", 1) for each in given)):
            records[name] = json.loads((path / "drift.json" if path.is_dir() else path).read_text())
            if path.is_dir():
                factors = [read_table(file, columns=["enlarged"]) for file in path.glob("predictions/step-0/*.parquet")]
                records["enlarged"][name] = round(float(np.median(concat_tables(factors)["enlarged"])), 1)
        write_records(HERE / FILE, records)
    records = read_records(HERE / FILE)
    write_page(HERE, page_of(records), figures_of(records), ("drift-", "comparison"))


if __name__ == "__main__":
    main(sys.argv[1:])
