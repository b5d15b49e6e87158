"""The tab "Scaling laws": scaling laws, the label budget, and the benefit of pretraining. Layout and handlers only."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

import law_curves
import law_planner
import law_pretraining
from hf_galaxy.errors import BadInput
from hf_galaxy.reports.measures import ALL
from law_records import STUDIES, measure_name, question_name, study_of
from text import sentence

_PILOT = "labels, error, seed\n250, 0.31, 1\n250, 0.33, 2\n500, 0.26, 1\n500, 0.25, 2\n1000, 0.21, 1\n1000, 0.22, 2\n2000, 0.18, 1\n2000, 0.17, 2"
_PRIVATE = {"api_visibility": "private", "show_progress": "minimal"}
_FIRST = STUDIES[0]


def build(results: Path) -> None:
    """Build the tab, inside a `gr.Tab`, and its endpoints `scaling_law` and `label_budget`.

    Args:
        results: folder of the records, such as `law_records.RESULTS`.
    """
    gr.Markdown(f"## {sentence('laws.curves_title')}\n\n{sentence('laws.curves_about')}")
    _curves(results)
    gr.Markdown(f"## {sentence('laws.planner_title')}\n\n{sentence('laws.planner_about')}")
    with gr.Tabs():
        with gr.Tab(sentence("laws.from_records")):
            _planner(results)
        with gr.Tab(sentence("laws.from_pilot")):
            _pilot()
    gr.Markdown(f"## {sentence('laws.pretraining_title')}")
    gr.HTML(law_pretraining.page(results))
    _endpoints(results)


def _curves(results: Path) -> None:
    with gr.Row():
        study, measure, question = _menus(results)
    architectures = gr.CheckboxGroup(
        _series(results, _FIRST), value=_values(results, _FIRST), label=sentence("laws.architectures"),
        info=sentence("laws.architectures_info"), elem_id="laws-architectures",
    )  # fmt: skip

    def show(study: str, measure: str, question: str, chosen: list[str]) -> str:
        return _html_or_error(lambda: law_curves.page(results, study, measure, question, _pairs(chosen)))

    shown = gr.HTML(show(study.value, measure.value, question.value, architectures.value), elem_id="laws-curves")
    _follow(results, study, measure, question, lambda name: gr.CheckboxGroup(
        choices=_series(results, name), value=_values(results, name)), architectures, show, shown)  # fmt: skip


def _planner(results: Path) -> None:
    with gr.Row():
        study, measure, question = _menus(results)
        series = gr.Dropdown(
            _series(results, _FIRST),
            value=_values(results, _FIRST)[0],
            label=sentence("laws.architecture"),
            min_width=250,
        )
    labels, target = _labels_and_target()
    ask = gr.Button(sentence("laws.ask"), variant="primary")

    def show(study: str, measure: str, question: str, chosen: str, labels: str, target: str) -> str:
        numbers = map(law_planner.typed, (labels, target))
        return _html_or_error(
            lambda: law_planner.record_page(results, study, _pairs([chosen])[0], measure, question, *numbers)
        )

    shown = gr.HTML(show(study.value, measure.value, question.value, series.value, "", ""), elem_id="laws-planner")
    _follow(results, study, measure, question, lambda name: gr.Dropdown(
        choices=_series(results, name), value=_values(results, name)[0]), series, show, shown, labels, target)  # fmt: skip
    inputs = [study, measure, question, series, labels, target]
    gr.on([ask.click, labels.submit, target.submit], show, inputs, shown, **_PRIVATE)


def _pilot() -> None:
    gr.Markdown(sentence("laws.pilot_about"))
    runs = gr.Textbox(_PILOT, label=sentence("laws.pilot"), lines=9, max_lines=20, elem_id="laws-pilot-runs")
    file = gr.File(label=sentence("laws.pilot_file"), file_types=[".csv", ".txt", ".tsv"])
    labels, target = _labels_and_target()
    ask = gr.Button(sentence("laws.ask"), variant="primary")

    def show(runs: str, labels: str, target: str) -> str:
        numbers = map(law_planner.typed, (labels, target))
        return _html_or_error(lambda: law_planner.page(law_planner.own_budget(runs, *numbers)))

    def read(file: str | None, runs: str) -> tuple[str, str]:
        if file is None:
            return runs, ""
        try:
            return law_planner.read_pilot(Path(file)), ""
        except BadInput as error:
            return runs, _error_html(error)

    shown = gr.HTML(elem_id="laws-pilot")
    file.change(read, [file, runs], [runs, shown], **_PRIVATE)
    gr.on([ask.click, labels.submit, target.submit], show, [runs, labels, target], shown, **_PRIVATE)


def _menus(results: Path) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    first = study_of(results, _FIRST)
    measures = first.measures()
    study = gr.Dropdown(
        [(study_of(results, name).title, name) for name in STUDIES],
        value=_FIRST,
        label=sentence("laws.study"),
        scale=2,
        min_width=250,
    )
    measure = gr.Dropdown(
        [(measure_name(each), each) for each in measures],
        value=first.default_measure(),
        label=sentence("laws.measure"),
        scale=2,
        min_width=250,
    )
    question = gr.Dropdown(
        [(question_name(each), each) for each in first.questions(first.default_measure())],
        value=ALL,
        label=sentence("laws.question"),
        min_width=250,
    )
    return study, measure, question


def _labels_and_target() -> tuple[gr.Textbox, gr.Textbox]:
    with gr.Row():
        labels = gr.Textbox(label=sentence("laws.labels"), info=sentence("laws.labels_info"), min_width=250)
        target = gr.Textbox(label=sentence("laws.target"), info=sentence("laws.target_info"), min_width=250)
    return labels, target


def _follow(
    results: Path, study: gr.Dropdown, measure: gr.Dropdown, question: gr.Dropdown,
    of_study: Callable[[str], gr.Dropdown | gr.CheckboxGroup], series: gr.Dropdown | gr.CheckboxGroup,
    show: Callable[..., str], shown: gr.HTML, *others: gr.Textbox,
) -> None:  # fmt: skip
    """Update the menus and the page: a study has its measures and series, a measure its questions."""

    def update(name: str) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown | gr.CheckboxGroup]:
        measures, value = study_of(results, name).measures(), study_of(results, name).default_measure()
        return (
            gr.Dropdown(choices=[(measure_name(each), each) for each in measures], value=value),
            _questions(results, name, value),
            of_study(name),
        )

    def of_measure(name: str, measure: str, question: str) -> gr.Dropdown:
        return _questions(results, name, measure, question)

    inputs = [study, measure, question, series, *others]
    study.input(update, study, [measure, question, series], **_PRIVATE).then(show, inputs, shown, **_PRIVATE)
    measure.input(of_measure, [study, measure, question], question, **_PRIVATE).then(show, inputs, shown, **_PRIVATE)
    gr.on([question.input, series.input], show, inputs, shown, **_PRIVATE)


def _questions(results: Path, name: str, measure: str, question: str = ALL) -> gr.Dropdown:
    questions = study_of(results, name).questions(measure)
    return gr.Dropdown(
        choices=[(question_name(each), each) for each in questions],
        value=question if question in questions else questions[0],
    )


def _values(results: Path, name: str) -> list[str]:
    # The value of a choice is one text: backbone and start, separated by a character that no name contains.
    return ["|".join(pair) for pair in study_of(results, name).series()]


def _series(results: Path, name: str) -> list[tuple[str, str]]:
    study = study_of(results, name)
    return list(zip((study.series_name(*pair) for pair in study.series()), _values(results, name), strict=True))


def _pairs(chosen: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((backbone, start) for backbone, start in (each.split("|") for each in chosen))


def _html_or_error(show: Callable[[], str]) -> str:
    """The result of a function, or its error message as HTML."""
    try:
        return show()
    except BadInput as error:
        return _error_html(error)


def _error_html(error: BadInput) -> str:
    return f'<p role="alert"><strong>{escape(str(error))}</strong></p>'


def _endpoints(results: Path) -> None:
    def scaling_law(
        study: str = _FIRST, measure: str = "", question: str = ALL, architecture: str = ""
    ) -> dict[str, Any]:
        """The scaling laws of a study: measurements and fitted laws, with 90 % intervals.

        Args:
            study: ceers_converged, gz2_classes, gz2_votes, ceers or ceers_starts.
            measure: above_oracle or true_rmse in ceers_converged, error or nll in gz2_classes, excess or rmse in the others; empty:
                the error, or else the first of the study.
            question: a question of Galaxy Zoo in the records, such as bar-jwst; or all.
            architecture: a backbone of timm, such as test_resnet; empty: all of the study.

        Returns:
            For each architecture and start the measured points, the parameters of L(D) = c + a D^-b and its curve with a band,
            or no law if the study has not converged; and a summary in sentences. None stands for unknown or infinite values.
        """
        return _or_error(
            lambda: law_curves.scaling_law(results, study, measure, question, [architecture] if architecture else [])
        )

    def label_budget(
        study: str = _FIRST, architecture: str = "test_resnet", start: str = "", labels: float | None = None,
        target: float | None = None, measure: str = "", question: str = ALL,
    ) -> dict[str, Any]:  # fmt: skip
        """The predicted error for a number of labelled galaxies, and the number for a target error, with 90 % intervals.

        Args:
            study: ceers_converged, gz2_classes, gz2_votes, ceers or ceers_starts.
            architecture: a backbone of the study, by its name in timm, such as test_resnet.
            start: initial weights, by their name in the records; may be empty if there is only one.
            labels: number of labelled galaxies to train on; or none.
            target: error to reach, in the unit of the measure; or none.
            measure: as of scaling_law.
            question: as of scaling_law.

        Returns:
            asked: prediction for the labels; galaxies_for: galaxies for the target, None for infinity; ahead: the error with
            1, 2, 4 and 8 times as many galaxies as now; doubling; curve; laws; and sentences with the answer in words.
        """
        return _or_error(
            lambda: law_planner.label_budget(results, study, architecture, start, labels, target, measure, question)
        )

    gr.api(scaling_law, api_name="scaling_law")
    gr.api(label_budget, api_name="label_budget")


def _or_error(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a function for a program, or its error."""
    try:
        return answer()
    except BadInput as error:
        raise gr.Error(str(error), print_exception=False) from None
