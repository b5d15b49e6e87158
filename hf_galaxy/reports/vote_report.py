"""How the votes for a decision tree, and their predictions, are shown.

Legend: `campaigns` of a calibration hold the `predicted` and observed (`given`) mean fractions of bins, and the PIT histogram
(`places`): the shares of votes in equal steps of the predicted cumulative distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.reports import charts
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.target_report import Loss, Results, TargetReport, cells, loss_sentence, numbers, with_interval
from hf_galaxy.reports.text import interval, number, table

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord

MAIN = "90"  # the level, in per cent, whose coverage is compared with that before the calibration
ABOVE = {"oracle": "above_oracle", "saturated": "excess"}  # the measure of a likelihood loss above that of a reference
FEW = 100  # test galaxies below which the card warns of a figure


class VoteReport(TargetReport):
    """Votes: figures of all questions, of each campaign and of each question."""

    pipeline = "galaxy-morphology"
    loss = "above_oracle"
    measures = ("above_oracle", "true_rmse", "excess", "rmse")
    calibrated = True

    def names(self, record: RunRecord) -> str:
        return "votes of volunteers"

    def phrase(self, record: RunRecord) -> str:
        return "the votes of Galaxy Zoo volunteers"

    def summary(self, record: RunRecord) -> str:
        predicted = "the fractions"
        if _is_dirichlet(record):
            mixed = record.settings.get("head_activation") == "mixture"
            predicted = (
                f"{'two mixed Dirichlet distributions' if mixed else 'a Dirichlet distribution'} over the fractions"
            )
        return (
            "Predicts the votes of Galaxy Zoo volunteers on a picture of a galaxy: for each of the "
            f"{len(record.dataset['questions'])} questions of {record.dataset['tree']}, {predicted} of the answers."
        )

    def usage(self) -> str:
        return "dict(zip(model.tree.columns, answer.fractions[0].tolist()))"

    def legend(self, record: RunRecord) -> str:
        constant = (
            "constant Dirichlet distribution that maximises"
            if _is_dirichlet(record)
            else "constant fractions that maximise"
        )
        return (
            "the best constant prediction: for the negative log-likelihood (nll, nats per galaxy asked; lower is better) the "
            f"{constant} the likelihood of the training votes, for the others the mean vote fractions of the training split. "
            "RMSE is the error of vote fractions between 0 and 1. Accuracy is the share of galaxies for which the answer with the "
            f"most votes is predicted. The figures of a campaign are means of its questions.{_references(record.results.get('test', {}))}"
        )

    def sections(self, record: RunRecord) -> list[tuple[str, str]]:
        """What the predictions of each question are worth, if that was measured."""
        worth = record.results.get("test", {}).get("volunteers", {})
        rows = [
            [name, each["galaxies"], in_volunteers(each)] for name, each in worth.items() if each["value"] is not None
        ]
        if not rows:
            return []
        text = (
            "How many volunteers of a galaxy one would have to ask to predict the answer of another one as well as this model does "
            "from the picture, knowing also how often each answer is given to the training galaxies. "
            "0: the model is no better than that alone. Where the number is beyond those who can be compared, as enough test galaxies "
            'have more votes, it is "or more".'
        )
        return [
            ("What it is worth in volunteers", f"{text}\n\n{table(['question', 'galaxies asked', 'volunteers'], rows)}")
        ]

    def limits(self, record: RunRecord) -> list[str]:
        return [
            "It predicts the answers of volunteers to this picture, not the nature of the galaxy: what volunteers cannot see, "
            "because it is faint, small or far away, it cannot predict.",
            "The fractions of a question are of the volunteers who are asked it. Their number follows from the questions before; "
            "where it is small, the answer means little.",
        ]

    def weak_parts(self, results: Results) -> list[str]:
        questions, limits = results.get("questions", {}), []
        counts = {name: each["galaxies_with_enough_votes"] for name, each in questions.items()}
        if few := [f"{name} ({count})" for name, count in counts.items() if count < FEW]:
            limits.append(f"Few test galaxies have enough votes for these questions: {', '.join(few)}.")
        pairs = {name: each["nll"] for name, each in questions.items()}
        if no_better := [n for n, nll in pairs.items() if nll["model"] is not None and nll["model"] >= nll["baseline"]]:
            limits.append(f"It predicts the votes no better than the constant for: {', '.join(no_better)}.")
        return limits

    def table(self, results: Results) -> str:
        """A table of campaigns, and one of questions; both with the loss above the oracle's and the error against the true fractions, where these were measured."""
        replicates = results.get("bootstrap", {})
        rows = []
        for name, figures in results["campaigns"].items():
            own = replicates.get("campaigns", {}).get(name, {})
            rows.append(
                [name, figures["galaxies"], *_cells_of_nll(results, figures, own), *_cells_of_errors(figures, own)]
            )
        has_true = any("true_rmse" in figures for figures in results["campaigns"].values())
        nll = ["baseline", *(["above the oracle"] if "oracle" in results["loss"] else [])]
        errors = ["RMSE", "baseline", *(["against true fractions"] if has_true else []), "accuracy", "baseline"]
        campaigns = table(["campaign: its questions", "galaxies", "nll, sum", *nll, *errors], rows)
        rows = []
        for name, figures in results["questions"].items():
            own = replicates.get("questions", {}).get(name, {})
            asked = [figures["galaxies_asked"], *_cells_of_nll(results, figures, own)]
            rows.append([name, *asked, figures["galaxies_with_enough_votes"], *_cells_of_errors(figures, own)])
        header = ["question", "galaxies asked", "nll", *nll, f"with >= {results['min_votes']} votes", *errors]
        return f"{_loss_sentence(results)}\n\n{campaigns}\n\n{table(header, rows)}"

    def header(self, results: Results) -> dict[str | None, Results]:
        """The figures of campaigns."""
        return results["campaigns"]

    def figure_title(self, name: str, figure: str, part: str | None) -> str:
        """All figures but the likelihood are means of the questions of a campaign."""
        name += " of vote fractions" if figure in ("rmse", "mae") else ""
        return name + (", mean of questions" if figure != "nll" else "")

    def dataset_config(self, results: Results, part: str | None) -> str | None:
        """The campaign, of several."""
        return part if len(results["campaigns"]) > 1 else None

    def study_losses(self, results: Results) -> list[Loss]:
        """`above_oracle` of all questions together; of each question, if it has galaxies, `above_oracle` and `true_rmse`. Of records from before
        the oracle was measured, `excess` and `rmse`; of a question with few galaxies, no likelihood."""
        drawn = results["bootstrap"]
        reference = "oracle" if "oracle" in results["loss"] else "saturated"
        losses = [_above(reference, results["loss"], drawn["loss"], results["galaxies"])]
        for question, figures in results["questions"].items():
            own, enough = drawn["questions"][question], figures["galaxies_with_enough_votes"]
            if figures["galaxies_asked"] and reference in figures["nll"]:
                losses.append(_above(reference, figures["nll"], own["nll"], figures["galaxies_asked"], question))
            if enough:
                error = "true_rmse" if "true_rmse" in figures else "rmse"
                losses.append(self._loss(error, [figures], [own], enough, question))
        return losses

    def benchmark_losses(self, results: Results) -> dict[str, Loss]:
        """`above_oracle` and `excess`; `true_rmse` and `rmse`, means of the campaigns. What was not measured is left out."""
        drawn, galaxies = results["bootstrap"], results["galaxies"]
        own, replicates = (list(each["campaigns"].values()) for each in (results, drawn))
        losses = [_above(name, results["loss"], drawn["loss"], galaxies) for name in ABOVE if name in results["loss"]]
        losses += [
            self._loss(name, own, replicates, galaxies)
            for name in ("true_rmse", "rmse")
            if all(name in figures for figures in own)
        ]
        return {loss.measure: loss for loss in losses}

    def calibration_text(self, calibration: Results) -> str:
        text = (
            f"{_of_calibration(calibration)}Left: predicted fractions, in ten bins of all answers together, against observed vote fractions. "
            "The error in the table is their mean distance in bins of each answer; that of a campaign is the mean of its questions. All are "
            "weighted by votes. A constant prediction of the mean fractions would have no error, either."
        )
        if _levels(calibration):
            text += (
                " Right, and in the table: the share of answers whose number of votes lies in the central interval of the predicted "
                "distribution. A larger share than the level means that the model is underconfident, a smaller share that "
                "it is overconfident. Brackets hold intervals over galaxies. The spread is the standard deviation of the predicted "
                "fractions, beside that of the constant distribution: of two calibrated models the one with the smaller spread says more. "
                f"The column after it says the interval of which level holds {MAIN} % of the numbers of votes, where the form of the distribution "
                "does not fit."
            )
        return text

    def calibration_table(self, calibration: Results) -> str:
        """The error, and the coverage of each level, of campaigns and questions; beside it that without the model's calibration."""
        levels, before = _levels(calibration), calibration.get("uncalibrated", {}).get("questions", {})
        header = ["", "error"]
        if levels:
            header += [*(f"in the {level} % interval" for level in levels), "spread"]
            header += [f"{MAIN} % lie in that of"]
            header += [f"before: in the {MAIN} % interval"] if before else []
        rows = []
        for name, each in [*calibration["campaigns"].items(), *calibration["questions"].items()]:
            if each["error"] is None:  # no votes
                continue
            row = [name, number(each["error"])]
            if levels:
                row += [*(_covered(each, level) for level in levels), _spread(each), _holding(each)]
                row += [number(before[name]["coverage"][MAIN]) if name in before else ""] if before else []
            rows.append(row)
        return table(header, rows)

    def calibration_chart(self, calibration: Results, where: str) -> bytes:
        """Predicted against observed vote fractions, and the coverage of the intervals of predicted votes."""
        campaigns = calibration["campaigns"]
        covered = any("places" in each for each in campaigns.values())
        with charts.style():
            figure, panels = charts.chart(1 + covered, height=3.8)
            for i, each in enumerate(campaigns.values()):
                look = {
                    "color": charts.COLORS[i % len(charts.COLORS)],
                    "marker": charts.MARKERS[i % len(charts.MARKERS)],
                }
                points = [p for p in zip(each["predicted"], each["given"], strict=True) if None not in p]
                if points:
                    panels[0].plot(*zip(*points, strict=True), ls="-", lw=1.2, ms=5, **look)
                if covered and each["places"][0] is not None:
                    panels[1].plot(*charts.coverage(each["places"]), ls="-", lw=1.2, ms=5, **look)
            charts.label_axes(figure, [panels[0]], ["Vote fractions"], "predicted fraction", "observed fraction")
            if covered:
                title = "Intervals of predicted votes"
                charts.label_axes(figure, [panels[1]], [title], "level of the central interval", "share of votes in it")
            before = _places_before(calibration)
            if covered and before:
                panels[1].plot(*charts.coverage(before), ls=":", lw=1.4, color=charts.GREY)
            charts.diagonals(panels)
            return charts.png(figure, f"Calibration on {where}", [
                charts.handle("calibrated", charts.GREY, ls="--", lw=0.9),
                *([charts.handle("before its calibration, mean of questions", charts.GREY, ls=":", lw=1.4)] if covered and before else []),
                *(
                    charts.handle(name, charts.COLORS[i % len(charts.COLORS)], marker=charts.MARKERS[i % len(charts.MARKERS)], ls="-", ms=5)
                    for i, name in enumerate(campaigns)
                ),
            ])  # fmt: skip


def _levels(calibration: Results) -> list[str]:
    """The levels, in per cent, whose coverage was measured; none with the multinomial likelihood."""
    return list(
        dict.fromkeys(level for each in calibration["campaigns"].values() for level in each.get("coverage", {}))
    )


def _covered(figures: Results, level: str) -> str:
    """The coverage at a level, of a question with its interval."""
    ends, value = figures.get("coverage_interval", {}).get(level), figures["coverage"][level]
    return (
        number(value) if ends is None or value is None else interval({"value": value, "low": ends[0], "high": ends[1]})
    )


def _spread(figures: Results) -> str:
    """The spread of a question, beside that of the constant prediction; nothing for what has none."""
    spread = figures.get("spread")
    return "" if spread is None else f"{number(spread['model'])} ({number(spread['baseline'])})"


def _holding(figures: Results) -> str:
    """The level of the interval that holds as many as it should, of a question."""
    if "holding" not in figures:
        return ""
    level = figures["holding"][MAIN]
    return "too few galaxies" if level is None else f"{100 * level:.0f} %"


def _of_calibration(calibration: Results) -> str:
    """What the calibration of the model is, and what it has brought."""
    if "uncalibrated" not in calibration:
        return ""
    return (
        "How certain the predictions are was corrected by galaxies that the model was not trained on: for each question a scale and shifts of "
        f"the logarithms that it predicts. Before that the loss was {number(calibration['uncalibrated']['loss'])} nats. "
    )


def _is_dirichlet(record: RunRecord) -> bool:
    return record.settings.get("likelihood") != "multinomial"


def in_volunteers(worth: Results, short: bool = False) -> str:
    """What predictions of a question are worth, with the interval: a part of the `volunteers` of the metrics of votes.

    Args:
        short: a whole number, without the interval.
    """

    def form(value: float) -> str:
        return f"{worth['most']} or more" if value >= worth["most"] else f"{value:.{0 if short else 1}f}"

    # Without an interval also where all of it is beyond what can be compared.
    return form(worth["value"]) if short or worth["low"] == worth["high"] else interval(worth, form)


def _above(reference: str, nll: Results, replicates: Results, galaxies: int, part: str = ALL) -> Loss:
    """The negative log-likelihood above that of a reference."""
    least = nll[reference]
    drawn = numbers(replicates["model"]) - numbers(replicates[reference])
    return Loss(ABOVE[reference], nll["model"] - least, nll["baseline"] - least, drawn, galaxies, part, least)


def _references(results: Results) -> str:
    """What the loss of the model can be compared with, in words."""
    loss = results.get("loss", {})
    if "saturated" not in loss:
        return ""
    least = f" No prediction can have a loss below {number(loss['saturated'])} on the test split, and only one that knew the votes would have it;"
    if "oracle" not in loss:
        return f"{least} that of the true vote fractions is higher, and was not measured."
    return (
        f"{least} one that knew the true vote fractions of each galaxy would have about {number(loss['oracle'])}. This oracle is estimated from the "
        "votes alone. What lies above it could be learnt, as far as pictures show it; the rest is which volunteers were asked. "
        "The RMSE against true fractions is without their scatter."
    )


def _cells_of_nll(results: Results, figures: Results, replicates: Results) -> tuple[str, ...]:
    """The likelihood beside the baseline, and that above the oracle where there is one."""
    pair = cells(figures, replicates, "nll")
    if "oracle" not in results["loss"]:
        return pair
    return (*pair, _above_oracle(figures["nll"], replicates.get("nll", {})) or "too few galaxies")


def _cells_of_errors(figures: Results, replicates: Results) -> list[str]:
    true = [cells(figures, replicates, "true_rmse")[0]] if "true_rmse" in figures else []
    return [*cells(figures, replicates, "rmse"), *true, *cells(figures, replicates, "accuracy")]


def _above_oracle(nll: Results, replicates: Results) -> str | None:
    """The loss above the oracle's, with the interval of their difference where it was measured in replicates."""
    if nll.get("oracle") is None:
        return None
    drawn = numbers(replicates["model"]) - numbers(replicates["oracle"]) if "oracle" in replicates else np.empty(0)
    return with_interval(nll["model"] - nll["oracle"], drawn[np.isfinite(drawn)].tolist())


def _loss_sentence(results: Results) -> str:
    sentence = loss_sentence(results)
    above = _above_oracle(results["loss"], results.get("bootstrap", {}).get("loss", {}))
    if above is None:
        return sentence
    baseline = results["loss"]["baseline"] - results["loss"]["oracle"]
    return f"{sentence} Above that of the true vote fractions: {above}, baseline {number(baseline)}."


def _places_before(calibration: Results) -> list[float]:
    """The mean PIT histogram of the questions without the model's calibration; empty if there is none."""
    questions = calibration.get("uncalibrated", {}).get("questions", {}).values()
    histograms = [each["places"] for each in questions if each.get("places") and None not in each["places"]]
    return [sum(shares) / len(histograms) for shares in zip(*histograms, strict=True)]
