"""The second tab: scaling laws, the label budget, and what pretraining brings. Layout and handlers, nothing else."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import gradio as gr

import law_curves
import law_planner
import law_pretraining
from hf_galaxy.errors import BadInput
from hf_galaxy.reports.measures import ALL
from law_records import STUDIES, measured_by, question_called, study_of
from text import say

_PILOT = "labels, error, seed\n250, 0.31, 1\n250, 0.33, 2\n500, 0.26, 1\n500, 0.25, 2\n1000, 0.21, 1\n1000, 0.22, 2\n2000, 0.18, 1\n2000, 0.17, 2"
_PRIVATE = {"api_visibility": "private", "show_progress": "minimal"}
_FIRST = STUDIES[0]


def build(results: Path) -> None:
    """Lay the tab out, inside a `gr.Tab`, and add its endpoints `scaling_law` and `label_budget`.

    Args:
        results: the folder of the committed records, `law_records.RESULTS` unless others are to be shown.
    """
    gr.Markdown(f"## {say('laws.curves_title')}\n\n{say('laws.curves_about')}")
    _curves(results)
    gr.Markdown(f"## {say('laws.planner_title')}\n\n{say('laws.planner_about')}")
    with gr.Tabs():
        with gr.Tab(say("laws.from_records")):
            _planner(results)
        with gr.Tab(say("laws.from_pilot")):
            _pilot()
    gr.Markdown(f"## {say('laws.pretraining_title')}")
    gr.HTML(law_pretraining.page(results))
    _endpoints(results)


def _curves(results):
    with gr.Row():
        study, measure, question = _menus(results)
    architectures = gr.CheckboxGroup(
        _series(results, _FIRST), value=_values(results, _FIRST), label=say("laws.architectures"),
        info=say("laws.architectures_info"), elem_id="laws-architectures",
    )  # fmt: skip

    def show(study, measure, question, chosen):
        return _kindly(lambda: law_curves.page(results, study, measure, question, _pairs(chosen)))

    shown = gr.HTML(show(study.value, measure.value, question.value, architectures.value), elem_id="laws-curves")
    _follow(results, study, measure, question, lambda name: gr.CheckboxGroup(
        choices=_series(results, name), value=_values(results, name)), architectures, show, shown)  # fmt: skip


def _planner(results):
    with gr.Row():
        study, measure, question = _menus(results)
        series = gr.Dropdown(
            _series(results, _FIRST), value=_values(results, _FIRST)[0], label=say("laws.architecture"), min_width=250
        )
    labels, target = _asked()
    ask = gr.Button(say("laws.ask"), variant="primary")

    def show(study, measure, question, chosen, *asked):
        pair, asked = _pairs([chosen])[0], map(law_planner.typed, asked)
        return _kindly(lambda: law_planner.record_page(results, study, pair, measure, question, *asked))

    shown = gr.HTML(show(study.value, measure.value, question.value, series.value, "", ""), elem_id="laws-planner")
    _follow(results, study, measure, question, lambda name: gr.Dropdown(
        choices=_series(results, name), value=_values(results, name)[0]), series, show, shown, labels, target)  # fmt: skip
    inputs = [study, measure, question, series, labels, target]
    gr.on([ask.click, labels.submit, target.submit], show, inputs, shown, **_PRIVATE)


def _pilot():
    gr.Markdown(say("laws.pilot_about"))
    runs = gr.Textbox(_PILOT, label=say("laws.pilot"), lines=9, max_lines=20, elem_id="laws-pilot-runs")
    file = gr.File(label=say("laws.pilot_file"), file_types=[".csv", ".txt", ".tsv"])
    labels, target = _asked()
    ask = gr.Button(say("laws.ask"), variant="primary")

    def show(runs, *asked):
        return _kindly(lambda: law_planner.page(law_planner.own_budget(runs, *map(law_planner.typed, asked))))

    def read(file, runs):
        if file is None:
            return runs, ""
        try:
            return law_planner.read_pilot(Path(file)), ""
        except BadInput as error:
            return runs, _told(error)

    shown = gr.HTML(elem_id="laws-pilot")
    file.change(read, [file, runs], [runs, shown], **_PRIVATE)
    gr.on([ask.click, labels.submit, target.submit], show, [runs, labels, target], shown, **_PRIVATE)


def _menus(results):
    first = study_of(results, _FIRST)
    measures = first.measures()
    study = gr.Dropdown(
        [(study_of(results, name).title, name) for name in STUDIES],
        value=_FIRST,
        label=say("laws.study"),
        scale=2,
        min_width=250,
    )
    measure = gr.Dropdown(
        [(measured_by(each), each) for each in measures],
        value=first.usual(),
        label=say("laws.measure"),
        scale=2,
        min_width=250,
    )
    question = gr.Dropdown([(question_called(ALL), ALL)], value=ALL, label=say("laws.question"), min_width=250)
    return study, measure, question


def _asked():
    with gr.Row():
        labels = gr.Textbox(label=say("laws.labels"), info=say("laws.labels_info"), min_width=250)
        target = gr.Textbox(label=say("laws.target"), info=say("laws.target_info"), min_width=250)
    return labels, target


def _follow(results, study, measure, question, of_study: Callable, series, show, shown, *asked):
    """Menus follow one another: a study has its measures and series, a measure its questions; what is shown follows all."""

    def chosen(name):
        measures, value = study_of(results, name).measures(), study_of(results, name).usual()
        return (
            gr.Dropdown(choices=[(measured_by(each), each) for each in measures], value=value),
            _questions(results, name, value),
            of_study(name),
        )

    def of_measure(name, measure, question):
        return _questions(results, name, measure, question)

    inputs = [study, measure, question, series, *asked]
    study.input(chosen, study, [measure, question, series], **_PRIVATE).then(show, inputs, shown, **_PRIVATE)
    measure.input(of_measure, [study, measure, question], question, **_PRIVATE).then(show, inputs, shown, **_PRIVATE)
    gr.on([question.input, series.input], show, inputs, shown, **_PRIVATE)


def _questions(results, name, measure, question=ALL):
    questions = study_of(results, name).questions(measure)
    return gr.Dropdown(
        choices=[(question_called(each), each) for each in questions],
        value=question if question in questions else questions[0],
    )


def _values(results, name):
    # A choice has one text for a value, so that backbone and start are parted by what no name of either has.
    return ["|".join(pair) for pair in study_of(results, name).series()]


def _series(results, name):
    study = study_of(results, name)
    return list(zip((study.called(*pair) for pair in study.series()), _values(results, name), strict=True))


def _pairs(chosen):
    return tuple(tuple(each.split("|")) for each in chosen)


def _kindly(show):
    """What is shown, or in words why it cannot be."""
    try:
        return show()
    except BadInput as error:
        return _told(error)


def _told(error):
    return f'<p role="alert"><strong>{escape(str(error))}</strong></p>'


def _endpoints(results):
    def scaling_law(study: str = _FIRST, measure: str = "error", question: str = ALL, architecture: str = "") -> dict:
        """The scaling laws of a study: what was measured, and the law that was fitted, with intervals of 90 %.

        Args:
            study: gz2_classes, gz2_votes, ceers or ceers_starts.
            measure: error or nll in gz2_classes; excess or rmse in the others.
            question: a question of Galaxy Zoo by its name in the records, such as bar-jwst, or all.
            architecture: a backbone by its name in timm, such as resnet10t; empty for all of the study.

        Returns:
            For each architecture and start the measured points, the parameters of L(D) = c + a D^-b, its curve with the band,
            and sentences that say what they show. None stands for what is not known or infinite.
        """
        return _answered(
            lambda: law_curves.scaling_law(results, study, measure, question, [architecture] if architecture else [])
        )

    def label_budget(
        study: str = _FIRST, architecture: str = "resnet10t", start: str = "", labels: float | None = None,
        target: float | None = None, measure: str = "", question: str = ALL,
    ) -> dict:  # fmt: skip
        """How low the error falls with so many labelled galaxies, and how many a target needs, with intervals of 90 %.

        Args:
            study: gz2_classes, gz2_votes, ceers or ceers_starts.
            architecture: a backbone of the study by its name in timm, such as resnet10t.
            start: what it started from, by its name in the records; may be empty where there is one.
            labels: labelled galaxies to learn from, a whole number; or none.
            target: the error to be reached, in the unit of the measure; or none.
            measure: as of scaling_law; empty for the error, or else the first of the study.
            question: as of scaling_law.

        Returns:
            asked: what is foretold for the labels; galaxies_for: what the target needs, None for infinity; ahead: the error with
            1, 2, 4 and 8 times as many galaxies as now; doubling; curve; laws; and sentences with the answer in words.
        """
        return _answered(
            lambda: law_planner.label_budget(results, study, architecture, start, labels, target, measure, question)
        )

    gr.api(scaling_law, api_name="scaling_law")
    gr.api(label_budget, api_name="label_budget")


def _answered(answer):
    try:
        return answer()
    except BadInput as error:
        raise gr.Error(str(error), print_exception=False) from None
